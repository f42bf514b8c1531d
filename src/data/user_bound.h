#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <unordered_map>
#include <vector>

#include "name_hash.h"
#include "sfumato/data/prepare.h"
#include "users_file.h"

namespace sfumato {

/// Which user each image belongs to, and which m images of each user are kept.
///
/// Call admit_candidate() for every image of the source, then close() and check_complete(), then
/// keep() for every image again: the m of each user with the smallest HMAC of their name under the
/// secret key are kept.
/// The choice for one user depends on that user's images alone, which is what makes "one user" a
/// unit of privacy.
class UserBound {
 public:
  /// Reads a users' file (users_file.h). DataError as file:line for what is none, for a path that
  /// leaves the source, or for a file that is given to two users.
  UserBound(const std::filesystem::path& csv, std::int64_t records_per_user, std::string key);

  void admit_candidate(const std::string& image);
  void close();
  /// DataError unless the CSV names every image that was admitted and no file besides: says why
  /// where that shows (explain_unknown_files), else counts them and names the first.
  void check_complete() const;
  /// True if the image is one of its user's m. Never true more than m times per user.
  bool keep(const std::string& image);

  /// 0, 1, ... in order of first mention in the CSV. DataError if it does not name the image.
  std::int32_t user(const std::string& image) const;
  /// Groups of ids that differ in white space or case alone; a warning named them.
  std::int64_t users_alike() const { return users_alike_; }
  /// What bounds of 1, 2, 4, ... images and the one that is set would keep of the images that were
  /// admitted, smallest bound first; the last keeps all.
  std::vector<KeptByBound> kept_by_bound() const;
  /// Whether the image's user is held out, by is_held_out() of the id.
  bool is_held_out(const std::string& image, double share) const;
  /// Users of whom at least one image was kept, held out or not.
  std::int64_t users_kept() const;
  std::int64_t users_kept_held_out(double share) const;

 private:
  struct Entry {
    NameHash name_hash;
    std::int32_t user;
    std::uint32_t line;
    bool found;  ///< the source has it
  };
  struct User {
    std::vector<std::uint64_t> smallest;  ///< max-heap of at most m keyed hashes
    std::uint64_t threshold = 0;
    std::int64_t images = 0;  ///< admitted
    double place = 0;         ///< as holdout_place() of the id
    std::int64_t kept = 0;
  };

  void read_csv();
  void add_entry(const std::string& file, const std::string& user, std::int64_t line);
  [[noreturn]] void fail(std::int64_t line, const std::string& what) const;
  [[noreturn]] void throw_two_users(const Entry& first, const Entry& second) const;
  [[noreturn]] void throw_not_in_source() const;
  /// The first of entries_ that is of the image; their number if none is.
  std::size_t position(const std::string& image) const;
  /// A line of the CSV: names are not kept.
  UsersLine line_at(std::int64_t wanted) const;
  void report_alike(const std::unordered_map<std::string, std::int32_t>& ids);
  std::uint64_t keyed_hash(const std::string& image) const;

  std::filesystem::path csv_;
  std::int64_t records_per_user_;
  std::string key_;
  std::vector<Entry> entries_;                         ///< sorted by name_hash, then line
  std::unordered_map<std::string, std::int32_t> ids_;  ///< while the CSV is read
  std::vector<User> users_;
  std::int64_t without_user_ = 0;                ///< images that the CSV does not name
  std::vector<std::string> without_user_names_;  ///< the first million of them
  std::int64_t users_alike_ = 0;
};

}  // namespace sfumato
