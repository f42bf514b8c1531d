#pragma once
#include <filesystem>

namespace sfumato::test {

/// The checkout that the tests were built from.
std::filesystem::path source_folder();

/// Folder of shared development data (golden files, image sets): $SFUMATO_SHARED, or `shared`
/// beside the checkout. Empty if there is none; use SFUMATO_NEEDS_SHARED to skip with a message.
std::filesystem::path shared_folder();

}  // namespace sfumato::test

/// Skips the test, visibly, where the development data is missing.
#define SFUMATO_NEEDS_SHARED(relative)                                                      \
  if (::sfumato::test::shared_folder().empty() ||                                           \
      !std::filesystem::exists(::sfumato::test::shared_folder() / (relative)))              \
  GTEST_SKIP() << "development data '" << (relative) << "' not found beside the checkout; " \
               << "set SFUMATO_SHARED to its folder"
