#pragma once
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "sfumato/config/config.h"
#include "sfumato/core/error.h"
#include "support/temp_folder.h"

namespace sfumato::test {

/// load_config of a file "c.yaml" with this text.
inline std::unique_ptr<Config> load_text(const std::string& text,
                                         const std::vector<std::string>& overrides = {}) {
  const TempFolder folder;
  std::ofstream(folder / "c.yaml", std::ios::binary) << text;
  return load_config(folder / "c.yaml", overrides);
}

/// The mistakes that load_text reports, one per element, without the temporary folder's name.
/// Empty if it reports none.
inline std::vector<std::string> mistakes_of(const std::string& text,
                                            const std::vector<std::string>& overrides = {}) {
  const TempFolder folder;
  std::ofstream(folder / "c.yaml", std::ios::binary) << text;
  try {
    load_config(folder / "c.yaml", overrides);
    return {};
  } catch (const UsageError& error) {
    std::string message = error.what();
    const std::string prefix = folder.path().string() + "/";
    for (std::size_t at = 0; (at = message.find(prefix)) != std::string::npos;)
      message.erase(at, prefix.size());
    std::vector<std::string> lines(1);
    for (const char c : message)
      if (c == '\n')
        lines.emplace_back();
      else
        lines.back() += c;
    return lines;
  }
}

}  // namespace sfumato::test
