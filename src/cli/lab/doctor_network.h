#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "sfumato/bench/network_report.h"

namespace sfumato::cli {

std::string bytes_text(std::int64_t bytes);

/// What `doctor` says about a configuration's network: coverage, layers, memory, plan.
void print_network(const NetworkReport& report);
nlohmann::ordered_json network_json(const NetworkReport& report);

}  // namespace sfumato::cli
