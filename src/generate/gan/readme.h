#pragma once
#include <string>

namespace sfumato {

struct Config;

/// README.md of a release: how to draw from it.
std::string gan_readme(const Config& config);

}  // namespace sfumato
