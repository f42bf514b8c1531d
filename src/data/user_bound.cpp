#include "user_bound.h"

#include <fmt/format.h>

#include <locale.h>

#include <algorithm>
#include <charconv>
#include <cwchar>
#include <cwctype>
#include <limits>
#include <map>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/log.h"
#include "sfumato/core/printable.h"
#include "sfumato/core/sha256.h"

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

std::string without_dot(std::string name) {
  while (name.starts_with("./")) name.erase(0, 2);
  return name;
}

}  // namespace

std::string CsvReader::field() {
  std::string value;
  if (at_ >= text_.size() || text_[at_] != '"') {
    const std::size_t end = std::min(text_.find_first_of(",\n", at_), text_.size());
    value = text_.substr(at_, end - at_);
    at_ = end;
    if (value.ends_with('\r')) value.pop_back();
    return value;
  }
  for (++at_;; ++at_) {
    if (at_ >= text_.size())
      throw DataError(fmt::format("{}:{}: the quote is never closed", name_, record_line_));
    if (text_[at_] == '\n') ++line_;
    if (text_[at_] != '"') {
      value.push_back(text_[at_]);
    } else if (at_ + 1 < text_.size() && text_[at_ + 1] == '"') {
      value.push_back('"');
      ++at_;
    } else {
      break;
    }
  }
  ++at_;
  if (at_ < text_.size() && text_[at_] == '\r') ++at_;
  if (at_ < text_.size() && text_[at_] != ',' && text_[at_] != '\n')
    throw DataError(fmt::format("{}:{}: text after a closing quote", name_, line_));
  return value;
}

bool CsvReader::next(std::vector<std::string>& fields) {
  while (at_ < text_.size()) {
    fields.clear();
    record_line_ = line_;
    while (true) {
      fields.push_back(field());
      if (at_ < text_.size() && text_[at_] == ',') {
        ++at_;
        continue;
      }
      break;
    }
    if (at_ < text_.size()) {  // at a line feed
      ++at_;
      ++line_;
    }
    if (fields.size() > 1 || !fields[0].empty()) return true;
  }
  return false;
}

UserBound::UserBound(const std::filesystem::path& csv, std::int64_t records_per_user,
                     std::string key)
    : csv_(csv), records_per_user_(records_per_user), key_(std::move(key)) {
  read_csv();
}

void UserBound::read_csv() {
  const MappedFile file(csv_);
  std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  CsvReader reader(text, csv_.string());
  std::unordered_map<std::string, std::int32_t> ids;
  std::vector<std::string> fields;
  for (bool first = true; reader.next(fields); first = false) {
    if (fields.size() != 2 || fields[0].empty() || fields[1].empty())
      throw DataError(fmt::format("{}:{}: expected 'file,user', found {} field{}", csv_.string(),
                                  reader.line(), fields.size(),
                                  fields.size() == 2 ? "s, one of them empty" : "(s)"));
    if (first && (fields[0] == "file" || fields[0] == "file_name") && fields[1] == "user") continue;
    Entry entry{};
    entry.name_hash = hash_of_name(without_dot(fields[0]));
    entry.user = ids.try_emplace(fields[1], static_cast<std::int32_t>(ids.size())).first->second;
    entries_.push_back(entry);
  }
  const auto by_name = [](const Entry& a, const Entry& b) { return a.name_hash < b.name_hash; };
  std::ranges::sort(entries_, by_name);
  for (std::size_t i = 1; i < entries_.size(); ++i)
    if (entries_[i - 1].name_hash == entries_[i].name_hash &&
        entries_[i - 1].user != entries_[i].user)
      throw_two_users(entries_[i]);
  users_.resize(ids.size());
  report_alike(ids);
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

/// Second pass for the message: names are not kept.
void UserBound::throw_two_users(const Entry& entry) const {
  const std::string text = read_file(csv_);
  CsvReader reader(text, csv_.string());
  std::vector<std::string> fields;
  std::string name;
  std::int64_t line = 0;
  while (reader.next(fields)) {
    if (hash_of_name(without_dot(fields[0])) != entry.name_hash) continue;
    name = fields[0];
    line = reader.line();
  }
  throw DataError(fmt::format("{}:{}: file '{}' is given to two users", csv_.string(), line, name));
}

std::int32_t UserBound::user(const std::string& image) const {
  Entry wanted{};
  wanted.name_hash = hash_of_name(image);
  const auto at = std::ranges::lower_bound(
      entries_, wanted, [](const Entry& a, const Entry& b) { return a.name_hash < b.name_hash; });
  if (at == entries_.end() || at->name_hash != wanted.name_hash)
    throw DataError(
        fmt::format("'{}' does not say whose image '{}' is; add the line, or take the "
                    "image out of data.source",
                    csv_.string(), image));
  return at->user;
}

std::uint64_t UserBound::keyed_hash(const std::string& image) const {
  const std::string digest = hmac_sha256_hex(key_, image);
  std::uint64_t value = 0;
  std::from_chars(digest.data(), digest.data() + 16, value, 16);
  return value;
}

void UserBound::admit_candidate(const std::string& image) {
  auto& heap = users_[user(image)].smallest;
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

std::int64_t UserBound::users_kept() const {
  return std::ranges::count_if(users_, [](const User& user) { return user.kept > 0; });
}

}  // namespace sfumato
