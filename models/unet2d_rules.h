#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace sfumato {

/// Collects what is wrong with a configuration, so that one error tells it all.
class ConfigComplaints {
 public:
  explicit ConfigComplaints(std::string what) : what_(std::move(what)) {}
  void add(std::string_view complaint) { complaints_.emplace_back(complaint); }
  bool empty() const { return complaints_.empty(); }
  /// DataError with one line for each complaint.
  void throw_if_any() const;

 private:
  std::string what_;
  std::vector<std::string> complaints_;
};

}  // namespace sfumato
