#pragma once
#include <string>

#include "sfumato/config/config.h"

namespace sfumato {

/// release/README.md: what the folder holds and how to draw from it with diffusers without being
/// misled by its schedulers. Holds nothing but public settings. `own_blocks`: the network has
/// blocks that diffusers does not have, and network.py lies beside the README.
std::string release_readme(const Config& config, bool own_blocks);

}  // namespace sfumato
