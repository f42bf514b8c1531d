#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "csv_reader.h"
#include "sfumato/core/file.h"

namespace sfumato {

/// What a line of a users' file says.
struct UsersLine {
  std::string file, user;  ///< as they are written
  std::int64_t line = 0;   ///< of the file, from 1
};

/// Reads a users' file, one line after another: a CSV (RFC 4180 quotes; blank lines ignored) whose
/// first line names a column `file` or `file_name`, a path in the source, and a column `user`, in
/// upper or lower case, in any order and beside others; or, without such a line, lines `file,user`.
class UsersFile {
 public:
  explicit UsersFile(const std::filesystem::path& csv);
  /// False at the end. DataError as file:line for a line or a first line that cannot be read so,
  /// for other separators than commas, and for a file without a line of an image.
  bool next(UsersLine& line);

 private:
  /// Where the file and its user stand in a record.
  struct Columns {
    std::size_t file = 0, user = 1, count = 2;
    bool named = false;  ///< by the first record
  };
  Columns columns_of(const std::vector<std::string>& first) const;
  void check_separators(const std::vector<std::string>& first) const;
  void take(const std::vector<std::string>& fields, UsersLine& line) const;
  [[noreturn]] void fail_without_lines() const;
  std::string place() const;

  std::filesystem::path csv_;
  MappedFile mapped_;
  CsvReader reader_;
  std::vector<std::string> fields_;
  Columns columns_;
  bool is_first_ = true, has_lines_ = false;
};

/// The file of a line as sources name theirs: without "./" and "x/..".
std::string normal_path(const std::string& file);

/// What is wrong with a users' file of which no file is an image of the source, or not every one:
/// "csv:line: ...", with what may be meant, or "" where nothing of this kind explains it, or more
/// than one image or line might be meant: with the wrong one an image would be another person's.
/// `without_user`: all images that it does not name; `is_image` says of a normal_path() whether the
/// source has it.
std::string explain_unknown_files(const std::filesystem::path& csv,
                                  const std::vector<std::string>& without_user,
                                  const std::function<bool(const std::string&)>& is_image);

/// Of two lines that give one file to two users, how that may have come about: "" or "; ...".
std::string explain_two_users(const std::string& file, const std::string& user,
                              const std::string& other_user);

}  // namespace sfumato
