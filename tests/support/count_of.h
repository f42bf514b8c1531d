#pragma once
#include <cstddef>
#include <string>

namespace sfumato::test {

/// How often `word` stands in `text`.
inline std::size_t count_of(const std::string& text, const std::string& word) {
  std::size_t count = 0;
  for (auto at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) ++count;
  return count;
}

}  // namespace sfumato::test
