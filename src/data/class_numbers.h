#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace sfumato {

/// What whole numbers among labels mean where classes have public names, the same in every format.
///
/// A number is a place in the list, unless a name in it is a number other than its own place ("1"
/// before "0", "1" to "26", "01" first): then numbers are names, and the class of a number is the
/// one whose name has that value. Which of the two hangs on the public list alone.
class ClassNumbers {
 public:
  ClassNumbers() = default;
  explicit ClassNumbers(const std::vector<std::string>& public_names);

  bool are_names() const { return !misplaced_.empty(); }
  /// The first name that is a number other than its place.
  const std::string& misplaced() const { return misplaced_; }

  /// The public name of this value; the number's decimal digits where there is none.
  std::string name_of(std::int64_t number) const;
  /// One spelling for all texts that are one label: a public name as it is, "3.0" and "3" alike,
  /// other texts as they are.
  std::string spelling(std::string_view text) const;
  /// Whether `name` is public, and `label` means another class.
  bool contradict(std::string_view label, const std::string& name) const;

 private:
  std::vector<std::string> names_;
  std::unordered_map<std::string, std::size_t> places_;
  std::map<std::int64_t, std::string> by_value_;  ///< "" where two names have one value
  std::string misplaced_;
};

/// "3", "-1", "3.0"; nothing for leading zeros, because "07" may be another class than "7".
std::optional<std::int64_t> whole_number(std::string_view text);

/// Without the white space around it.
std::string_view trimmed(std::string_view text);

}  // namespace sfumato
