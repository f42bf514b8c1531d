#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "sfumato/config/config.h"

namespace sfumato {

/// What a release says of how to draw from it.
struct ReleasedSolver {
  /// scheduler/scheduler_config.json. A run that draws by ddpm or ddim prefers none: DDPMScheduler;
  /// others that by which they draw, or the nearest that diffusers has.
  nlohmann::ordered_json scheduler_config;
  /// Where diffusers would not draw what `sfumato sample` draws with the settings of this run: a
  /// sentence, else empty. Empty as well for settings that `sample` will refuse, which training
  /// does not use.
  std::string difference;
  /// sample.py, which draws what diffusers cannot; empty where it is not needed.
  std::string script;
};
ReleasedSolver released_solver(const Config& config);

/// network.py: the network for PyTorch, of blocks that diffusers does not have.
std::string_view released_network_script();

}  // namespace sfumato
