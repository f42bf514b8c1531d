#pragma once
#include <string>
#include <string_view>

#include "sfumato/config/settings_tree.h"

namespace sfumato {

/// What of the section sample families have a use for that draw an image in one pass.
inline constexpr std::string_view kSampleOfEveryFamily[] = {"batch", "candidates", "seed",
                                                            "format"};

/// The settings that may leave with a release, as YAML: values without where they came from, and
/// without texts that could name private files, folders or people (data.source, run.dir, ...). A
/// new setting of free text stays inside until it is listed in the source. What has no say in the
/// model.family is left out: sections of other families, how diffusion networks are drawn from.
std::string public_settings_yaml(const SettingsTree& tree);

}  // namespace sfumato
