#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "sfumato/run/run_verification.h"

namespace sfumato {

/// Every way in which a card says something else than the ledger of `run` proves, one clause each.
/// Needs run.plan.
std::vector<std::string> card_differences(const nlohmann::ordered_json& card,
                                          const RunVerification& run);

}  // namespace sfumato
