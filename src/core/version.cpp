#include "sfumato/core/version.h"

#include "sfumato_git_commit.h"

namespace sfumato {

std::string version() { return SFUMATO_VERSION; }
std::string git_commit() { return SFUMATO_GIT_COMMIT; }

}  // namespace sfumato
