#pragma once
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace sfumato {

/// Why a text cannot name a class ("is empty", "is not UTF-8, ..."); "" if it can. Cards, tables
/// and lists of a line each hold the names.
std::string class_name_defect(std::string_view name);

/// The names in a file with a name a line, in its order, which is that of the labels. Blank lines
/// at the end do not count. DataError as file:line for a line that is no name.
std::vector<std::string> read_class_names(const std::filesystem::path& file);

}  // namespace sfumato
