#pragma once
#include <string>

#include "sfumato/config/settings_tree.h"

namespace sfumato {

/// The settings that may leave with a release, as YAML: values without where they came from, and
/// without texts that could name private files, folders or people (data.source, run.dir, ...). A
/// new setting of free text stays inside until it is listed in the source.
std::string public_settings_yaml(const SettingsTree& tree);

}  // namespace sfumato
