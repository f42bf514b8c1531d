#include "user_bound.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <locale.h>

#include <algorithm>
#include <charconv>
#include <cwchar>
#include <cwctype>
#include <limits>
#include <map>
#include <set>
#include <tuple>

#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/core/printable.h"
#include "sfumato/core/sha256.h"
#include "sfumato/data/holdout.h"

namespace sfumato {
namespace {

/// An id without white space and in lower case, as far as the C.UTF-8 locale knows: by this, ids
/// are compared that may be one person's.
std::string folded(const std::string& id) {
  static const locale_t kLocale = ::newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
  std::string out;
  std::mbstate_t state{};
  const locale_t before = kLocale == nullptr ? nullptr : ::uselocale(kLocale);
  for (std::size_t at = 0; at < id.size();) {
    wchar_t wide = 0;
    const std::size_t bytes = std::mbrtowc(&wide, id.data() + at, id.size() - at, &state);
    if (bytes == 0 || bytes > id.size() - at) {  // no text: as it is
      out += id[at++];
      state = {};
      continue;
    }
    at += bytes;
    // iswspace knows no spaces that forbid a line break.
    if (std::iswspace(static_cast<wint_t>(wide)) || wide == 0xA0 || wide == 0x2007 ||
        wide == 0x202F || wide == 0x200B || wide == 0xFEFF)
      continue;
    out += fmt::format("{:x} ", static_cast<std::uint32_t>(
                                    std::towlower(std::towupper(static_cast<wint_t>(wide)))));
  }
  if (before != nullptr) ::uselocale(before);
  return out;
}

constexpr std::int64_t kNamesShown = 5;
/// Of images without a user, so that a file of another set does not fill the memory.
constexpr std::int64_t kNamesKept = 1'000'000;

std::vector<std::string> first_quoted(std::vector<std::string> names) {
  if (std::ssize(names) > kNamesShown) names.resize(kNamesShown);
  for (std::string& name : names) name = fmt::format("'{}'", printable(name));
  return names;
}

}  // namespace

UserBound::UserBound(const std::filesystem::path& csv, std::int64_t records_per_user,
                     std::string key)
    : csv_(csv), records_per_user_(records_per_user), key_(std::move(key)) {
  read_csv();
}

void UserBound::fail(std::int64_t line, const std::string& what) const {
  throw DataError(fmt::format("{}:{}: {}", csv_.string(), line, what));
}

void UserBound::add_entry(const std::string& file, const std::string& user, std::int64_t line) {
  const std::string path = normal_path(file);
  if (std::filesystem::path(file).is_absolute() || path == ".." || path.starts_with("../"))
    fail(line, fmt::format("'{}' is no path below data.source, as files are named here",
                           printable(file)));
  if (line > std::numeric_limits<std::uint32_t>::max()) fail(line, "the file has too many lines");
  const auto number = static_cast<std::int32_t>(ids_.size());
  entries_.push_back({hash_of_name(path), ids_.try_emplace(user, number).first->second,
                      static_cast<std::uint32_t>(line), false});
}

void UserBound::read_csv() {
  UsersFile reader(csv_);
  for (UsersLine line; reader.next(line);) add_entry(line.file, line.user, line.line);
  std::ranges::sort(entries_, [](const Entry& a, const Entry& b) {
    return std::tie(a.name_hash, a.line) < std::tie(b.name_hash, b.line);
  });
  for (std::size_t i = 1; i < entries_.size(); ++i)
    if (entries_[i - 1].name_hash == entries_[i].name_hash &&
        entries_[i - 1].user != entries_[i].user)
      throw_two_users(entries_[i - 1], entries_[i]);
  users_.resize(ids_.size());
  for (const auto& [id, number] : ids_) users_[number].place = holdout_place(id);
  report_alike(ids_);
  ids_ = {};
}

/// Whether two spellings are one person cannot be known, so it is asked: with one person under two
/// ids, each id has a bound of its own, and the guarantee is weaker than it says.
void UserBound::report_alike(const std::unordered_map<std::string, std::int32_t>& ids) {
  std::map<std::string, std::vector<std::string>> spellings;
  for (const auto& [id, number] : ids) spellings[folded(id)].push_back(id);
  std::string examples;
  constexpr std::int64_t kShown = 5;
  for (auto& [key, alike] : spellings) {
    if (alike.size() < 2) continue;
    if (++users_alike_ > kShown) continue;
    std::ranges::sort(alike);
    examples += examples.empty() ? "" : "; ";
    for (std::size_t i = 0; i < alike.size(); ++i)
      examples += fmt::format("{}'{}'", i == 0 ? "" : " and ", printable(alike[i]));
  }
  if (users_alike_ == 0) return;
  log_warning(fmt::format(
      "'{}' has ids of users that differ in spaces or case alone: {}{}. If they are one person, "
      "the bound on a user's images does not hold for that person, nor does the guarantee: write "
      "the id in one way and prepare again",
      csv_.string(), examples,
      users_alike_ > kShown ? fmt::format("; and {} more", users_alike_ - kShown) : ""));
}

UsersLine UserBound::line_at(std::int64_t wanted) const {
  UsersFile reader(csv_);
  for (UsersLine line; reader.next(line);)
    if (line.line == wanted) return line;
  return {};
}

void UserBound::throw_two_users(const Entry& first, const Entry& second) const {
  const UsersLine line = line_at(second.line);
  fail(second.line, fmt::format("file '{}' is given to two users; line {} names the other{}",
                                printable(line.file), first.line,
                                explain_two_users(line.file, line.user, line_at(first.line).user)));
}

std::size_t UserBound::position(const std::string& image) const {
  const NameHash wanted = hash_of_name(image);
  const auto at = std::ranges::lower_bound(entries_, wanted, {}, &Entry::name_hash);
  if (at == entries_.end() || at->name_hash != wanted) return entries_.size();
  return static_cast<std::size_t>(at - entries_.begin());
}

std::int32_t UserBound::user(const std::string& image) const {
  if (const std::size_t at = position(image); at < entries_.size()) return entries_[at].user;
  throw DataError(
      fmt::format("'{}' does not say whose image '{}' is; add the line, or take the image out of "
                  "data.source",
                  csv_.string(), printable(image)));
}

void UserBound::check_complete() const {
  if (without_user_ > 0) {
    const auto is_image = [&](const std::string& file) {
      const std::size_t at = position(file);
      return at < entries_.size() && entries_[at].found;
    };
    // Which image a line means is judged on all of them.
    if (without_user_ == std::ssize(without_user_names_))
      if (const std::string why = explain_unknown_files(csv_, without_user_names_, is_image);
          !why.empty())
        throw DataError(why);
    throw DataError(fmt::format(
        "'{}' does not say whose {} image{} of data.source {}: {}{}; add the line{}, or take the "
        "image{} out of data.source",
        csv_.string(), without_user_, without_user_ == 1 ? "" : "s",
        without_user_ == 1 ? "is" : "are", fmt::join(first_quoted(without_user_names_), ", "),
        without_user_ > kNamesShown ? ", ..." : "", without_user_ == 1 ? "" : "s",
        without_user_ == 1 ? "" : "s"));
  }
  if (!std::ranges::all_of(entries_, &Entry::found)) throw_not_in_source();
}

/// A file that is listed and not there is a name spelt otherwise, or images that are missing: both
/// change whose the others are, or what is learnt.
void UserBound::throw_not_in_source() const {
  std::vector<std::uint32_t> lines;
  for (const Entry& entry : entries_)
    if (!entry.found) lines.push_back(entry.line);
  std::ranges::sort(lines);
  std::vector<std::string> files;
  for (std::size_t i = 0; i < lines.size() && std::ssize(files) < kNamesShown; ++i)
    files.push_back(
        fmt::format("{}:{}: '{}'", csv_.string(), lines[i], printable(line_at(lines[i]).file)));
  throw DataError(fmt::format(
      "{}{}; {} listed there and no image{} of data.source, from whose folder they are named. "
      "Correct the name{}, or take the line{} out{}",
      fmt::join(files, ", "), lines.size() > files.size() ? ", ..." : "",
      lines.size() == 1 ? "1 file is" : fmt::format("{} files are", lines.size()),
      lines.size() == 1 ? "" : "s", lines.size() == 1 ? "" : "s", lines.size() == 1 ? "" : "s",
      lines.front() == 1 ? "; if the first line names columns, they are called 'file' and 'user'"
                         : ""));
}

std::uint64_t UserBound::keyed_hash(const std::string& image) const {
  const std::string digest = hmac_sha256_hex(key_, image);
  std::uint64_t value = 0;
  std::from_chars(digest.data(), digest.data() + 16, value, 16);
  return value;
}

void UserBound::admit_candidate(const std::string& image) {
  const std::size_t first = position(image);
  if (first == entries_.size()) {
    if (++without_user_ <= kNamesKept) without_user_names_.push_back(image);
    return;
  }
  for (std::size_t at = first;
       at < entries_.size() && entries_[at].name_hash == entries_[first].name_hash; ++at)
    entries_[at].found = true;
  User& owner = users_[entries_[first].user];
  ++owner.images;
  auto& heap = owner.smallest;
  heap.push_back(keyed_hash(image));
  std::ranges::push_heap(heap);
  if (std::ssize(heap) <= records_per_user_) return;
  std::ranges::pop_heap(heap);
  heap.pop_back();
}

void UserBound::close() {
  for (User& user : users_) {
    const bool full = std::ssize(user.smallest) == records_per_user_;
    user.threshold = full ? user.smallest.front() : std::numeric_limits<std::uint64_t>::max();
    user.smallest = {};
  }
}

bool UserBound::keep(const std::string& image) {
  User& owner = users_[user(image)];
  if (owner.kept >= records_per_user_ || keyed_hash(image) > owner.threshold) return false;
  ++owner.kept;
  return true;
}

std::vector<KeptByBound> UserBound::kept_by_bound() const {
  std::int64_t most = records_per_user_;
  for (const User& user : users_) most = std::max(most, user.images);
  std::set<std::int64_t> bounds{records_per_user_};
  for (std::int64_t bound = 1;; bound *= 2) {
    bounds.insert(bound);
    if (bound >= most) break;
  }
  std::vector<KeptByBound> rows;
  for (const std::int64_t bound : bounds) {
    rows.push_back({bound, 0});
    for (const User& user : users_) rows.back().images += std::min(bound, user.images);
  }
  return rows;
}

std::int64_t UserBound::users_kept() const {
  return std::ranges::count_if(users_, [](const User& user) { return user.kept > 0; });
}

bool UserBound::is_held_out(const std::string& image, double share) const {
  return users_[user(image)].place < share;
}

std::int64_t UserBound::users_kept_held_out(double share) const {
  return std::ranges::count_if(
      users_, [&](const User& user) { return user.kept > 0 && user.place < share; });
}

}  // namespace sfumato
