#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace sfumato {

/// Reads the keys of one config.json of an adversarial network. Every complaint is a DataError
/// "<what>: <key>: ..."; keys that start with "_" are bookkeeping.
class GanConfig {
 public:
  /// DataError unless `json` is an object.
  GanConfig(const nlohmann::json& json, std::string what);

  /// A whole number from `low` to `high`; without `otherwise` the key must be there.
  int64_t whole(const std::string& key, int64_t low, int64_t high,
                std::optional<int64_t> otherwise = {});
  /// Whole numbers from 1 to `high`, at most `most` of them; none if the key is missing.
  std::vector<int64_t> list(const std::string& key, int64_t high, std::size_t most);
  bool flag(const std::string& key, bool otherwise);
  /// One of `names`; the first of them if the key is missing. Or `unlisted`, which is read and
  /// never proposed.
  std::string choice(const std::string& key, const std::vector<std::string>& names,
                     const std::string& unlisted = {});

  int64_t sample_size();                     ///< height and width
  int64_t channels(const std::string& key);  ///< of the images: 1 to 4
  std::vector<int64_t> widths();             ///< block_out_channels, at least one
  int64_t num_classes();                     ///< num_class_embeds; 0 for null or no such key
  std::string start();                       ///< "initialization", one of start_names()

  [[noreturn]] void fail(const std::string& key, const std::string& complaint) const;
  /// DataError for a key that nobody asked for.
  void finish() const;

 private:
  const nlohmann::json* find(const std::string& key);
  int64_t to_whole(const std::string& key, const nlohmann::json& value, int64_t low,
                   int64_t high) const;

  const nlohmann::json& json_;
  std::string what_;
  std::set<std::string> asked_;
};

/// num_class_embeds as config.json has it: null for 0.
nlohmann::ordered_json class_count(int64_t num_classes);

/// DataError unless GroupNorm(group_count(width), width) exists for each of `widths`.
void require_groups(const GanConfig& config, const std::vector<int64_t>& widths);
/// min(32, channels).
int64_t group_count(int64_t channels);

}  // namespace sfumato
