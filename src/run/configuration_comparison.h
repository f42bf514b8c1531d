#pragma once
#include <optional>
#include <string>
#include <vector>

#include "sfumato/config/config.h"
#include "sfumato/privacy/mechanism.h"

namespace sfumato {

/// The selection that a configuration asks for; none where its mean_runs is 0.
std::optional<Selection> planned_selection(const Config& config);

/// Where `config` sets another mechanism than `plan`, one clause each. What a configuration leaves
/// to calibration (noise_multiplier from target_epsilon, a stage's from its share) and what the
/// store decides (the unit) is not compared.
std::vector<std::string> configuration_differences(const Config& config, const MechanismPlan& plan);

}  // namespace sfumato
