#pragma once
#include <nlohmann/json_fwd.hpp>

#include "sfumato/bench/network_report.h"

namespace sfumato::cli {

/// What `doctor` says about a configuration's network: coverage, layers, memory, plan.
void print_network(const NetworkReport& report);
nlohmann::ordered_json network_json(const NetworkReport& report);

}  // namespace sfumato::cli
