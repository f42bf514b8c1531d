#pragma once
#include <string>

namespace sfumato {

/// "0.1.0" of this build.
std::string version();
/// The commit it was built from, with "-dirty" for local changes; "unknown" outside git.
std::string git_commit();

}  // namespace sfumato
