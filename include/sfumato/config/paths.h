#pragma once
#include <initializer_list>
#include <string>
#include <vector>

#include "sfumato/config/config.h"

namespace sfumato {

/// The settings that name files and folders to be read.
std::vector<Setting<std::string>*> input_paths(Config& config);

/// Relative paths that a configuration file names, and that are not in the working folder, are
/// those beside the file if they are there. A pattern (shards/{000..003}.tar) and what lies in an
/// archive (images.zip/train) are where their folder or archive is.
void find_beside_configuration(Config& config);

/// DataError, which names every setting that names what is not there, where it was set and in which
/// folders it was looked for. Empty settings are none.
void require_paths(std::initializer_list<const Setting<std::string>*> settings);

}  // namespace sfumato
