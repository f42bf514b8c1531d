#pragma once
#include <string>
#include <vector>

#include "sfumato/config/config.h"

namespace sfumato {

/// What training will do as it is told and hardly anybody means, in sentences with the remedy: a
/// stage that is paid for and used by nothing.
std::vector<std::string> training_cautions(const Config& config);

}  // namespace sfumato
