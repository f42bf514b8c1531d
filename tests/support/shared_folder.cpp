#include "support/shared_folder.h"

#include <cstdlib>

namespace sfumato::test {

std::filesystem::path source_folder() { return SFUMATO_SOURCE_DIR; }

std::filesystem::path shared_folder() {
  if (const char* named = std::getenv("SFUMATO_SHARED")) return named;
  const auto beside = source_folder().parent_path() / "shared";
  return std::filesystem::is_directory(beside) ? beside : std::filesystem::path{};
}

}  // namespace sfumato::test
