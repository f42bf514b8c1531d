#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "name_hash.h"

namespace sfumato {

/// Parses RFC 4180 CSV, one record after another. DataError as "name:line".
class CsvReader {
 public:
  CsvReader(std::string_view text, std::string name) : text_(text), name_(std::move(name)) {}
  /// The next record with at least one non-empty field; false at the end.
  bool next(std::vector<std::string>& fields);
  /// Line on which the last record began, from 1.
  std::int64_t line() const { return record_line_; }

 private:
  std::string field();
  std::string_view text_;
  std::string name_;
  std::size_t at_ = 0;
  std::int64_t line_ = 1;
  std::int64_t record_line_ = 1;
};

/// Which user each image belongs to, and which m images of each user are kept.
///
/// Call admit_candidate() for every image of the source, then close(), then keep() for every image
/// again: the m of each user with the smallest HMAC of their name under the secret key are kept.
/// The choice for one user depends on that user's images alone, which is what makes "one user" a
/// unit of privacy.
class UserBound {
 public:
  /// Reads a CSV with lines `file,user` (RFC 4180 quotes; an optional header `file,user` or
  /// `file_name,user`; blank lines ignored). DataError as file:line for anything else, or for a
  /// file that is given to two users.
  UserBound(const std::filesystem::path& csv, std::int64_t records_per_user, std::string key);

  /// DataError if the CSV does not name the image.
  void admit_candidate(const std::string& image);
  void close();
  /// True if the image is one of its user's m. Never true more than m times per user.
  bool keep(const std::string& image);

  /// 0, 1, ... in order of first mention in the CSV.
  std::int32_t user(const std::string& image) const;
  /// Groups of ids that differ in white space or case alone; a warning named them.
  std::int64_t users_alike() const { return users_alike_; }
  /// Users of whom at least one image was kept.
  std::int64_t users_kept() const;

 private:
  struct Entry {
    NameHash name_hash;
    std::int32_t user;
  };
  struct User {
    std::vector<std::uint64_t> smallest;  ///< max-heap of at most m keyed hashes
    std::uint64_t threshold = 0;
    std::int64_t kept = 0;
  };

  void read_csv();
  [[noreturn]] void throw_two_users(const Entry& entry) const;
  void report_alike(const std::unordered_map<std::string, std::int32_t>& ids);
  std::uint64_t keyed_hash(const std::string& image) const;

  std::filesystem::path csv_;
  std::int64_t records_per_user_;
  std::string key_;
  std::vector<Entry> entries_;  ///< sorted by name_hash
  std::vector<User> users_;
  std::int64_t users_alike_ = 0;
};

}  // namespace sfumato
