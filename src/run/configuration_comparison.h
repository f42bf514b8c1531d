#pragma once
#include <string>
#include <vector>

#include "sfumato/config/config.h"
#include "sfumato/privacy/mechanism.h"

namespace sfumato {

/// Where `config` sets another mechanism than `plan`, one clause each. What a configuration leaves
/// to calibration (noise_multiplier from target_epsilon, a stage's from its share) and what the
/// store decides (the unit) is not compared.
std::vector<std::string> configuration_differences(const Config& config, const MechanismPlan& plan);

}  // namespace sfumato
