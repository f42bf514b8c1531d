#include "support/shared_folder.h"

#include <cstdlib>

namespace sfumato::test {

std::filesystem::path shared_folder() {
  if (const char* named = std::getenv("SFUMATO_SHARED")) return named;
  const auto beside = std::filesystem::path(SFUMATO_SOURCE_DIR).parent_path() / "shared";
  return std::filesystem::is_directory(beside) ? beside : std::filesystem::path{};
}

}  // namespace sfumato::test
