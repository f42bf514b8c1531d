#include "sfumato/core/class_name.h"

#include <fmt/format.h>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/printable.h"

namespace sfumato {
namespace {

constexpr std::size_t kMaxBytes = 200;  // file systems take 255 for a folder

}  // namespace

std::string class_name_defect(std::string_view name) {
  if (name.empty()) return "is empty";
  if (name.size() > kMaxBytes) return fmt::format("has more than {} bytes", kMaxBytes);
  if (printable(name) != name) return "is not UTF-8, or has control characters";
  return "";
}

std::vector<std::string> read_class_names(const std::filesystem::path& file) {
  const std::string content = read_file(file);
  std::string_view text = content;
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  while (text.ends_with('\n') || text.ends_with('\r')) text.remove_suffix(1);
  std::vector<std::string> names;
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (const std::string defect = class_name_defect(line); !defect.empty())
      throw DataError(fmt::format("{}:{}: the class name '{}' {}", file.string(), names.size() + 1,
                                  printable(line), defect));
    names.emplace_back(line);
  }
  if (names.empty()) throw DataError(fmt::format("'{}' has no class name in it", file.string()));
  return names;
}

}  // namespace sfumato
