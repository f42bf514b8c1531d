#include "models/gan_config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "models/gan_start.h"
#include "sfumato/core/enum_names.h"
#include "sfumato/core/error.h"
#include "sfumato/core/text.h"

namespace sfumato {
namespace {

constexpr int64_t kMaxSide = 1024, kMaxWidth = 8192, kMaxClasses = 1'000'000, kMaxGroups = 32;
constexpr std::size_t kMaxBlocks = 16;

/// Keys that people will try although no network has them, and why.
constexpr RefusedName kRefused[] = {
    {"minibatch_stddev",
     "compares each image with the others of its batch, so that the score of a record depends on "
     "all others and clipping its gradient bounds nothing; remove the key"}};

}  // namespace

GanConfig::GanConfig(const nlohmann::json& config, std::string what)
    : json_(config), what_(std::move(what)) {
  if (!json_.is_object()) throw DataError(what_ + ": holds no object {...}");
}

void GanConfig::fail(const std::string& key, const std::string& complaint) const {
  throw DataError(fmt::format("{}: {}: {}", what_, key, complaint));
}

const nlohmann::json* GanConfig::find(const std::string& key) {
  asked_.insert(key);
  const auto found = json_.find(key);
  return found == json_.end() ? nullptr : &*found;
}

int64_t GanConfig::to_whole(const std::string& key, const nlohmann::json& value, int64_t low,
                            int64_t high) const {
  // The second is for numbers that int64_t does not hold.
  const bool whole = value.is_number_integer() &&
                     !(value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{1} << 62);
  if (!whole || value.get<int64_t>() < low || value.get<int64_t>() > high)
    fail(key, fmt::format("{}; must be a whole number from {} to {}", value.dump(), low, high));
  return value.get<int64_t>();
}

int64_t GanConfig::whole(const std::string& key, int64_t low, int64_t high,
                         std::optional<int64_t> otherwise) {
  const nlohmann::json* value = find(key);
  if (value != nullptr) return to_whole(key, *value, low, high);
  if (!otherwise)
    fail(key, fmt::format("is missing; it must be a whole number from {} to {}", low, high));
  return *otherwise;
}

std::vector<int64_t> GanConfig::list(const std::string& key, int64_t high, std::size_t most) {
  const nlohmann::json* value = find(key);
  std::vector<int64_t> all;
  if (value == nullptr) return all;
  if (!value->is_array() || value->size() > most)
    fail(key, fmt::format("must be a list of at most {} whole numbers", most));
  for (const nlohmann::json& one : *value) all.push_back(to_whole(key, one, 1, high));
  return all;
}

bool GanConfig::flag(const std::string& key, bool otherwise) {
  const nlohmann::json* value = find(key);
  if (value == nullptr) return otherwise;
  if (!value->is_boolean()) fail(key, fmt::format("{}; must be true or false", value->dump()));
  return value->get<bool>();
}

std::string GanConfig::choice(const std::string& key, const std::vector<std::string>& names,
                              const std::string& unlisted) {
  const nlohmann::json* value = find(key);
  if (value == nullptr) return names.front();
  const std::string text = value->is_string() ? value->get<std::string>() : value->dump();
  if (value->is_string() && !unlisted.empty() && text == unlisted) return text;
  if (!value->is_string() || std::find(names.begin(), names.end(), text) == names.end())
    fail(key, fmt::format("'{}' is none of {}{}", text, fmt::join(names, ", "),
                          did_you_mean(text, names)));
  return text;
}

int64_t GanConfig::sample_size() { return whole("sample_size", 4, kMaxSide); }

int64_t GanConfig::channels(const std::string& key) { return whole(key, 1, 4); }

std::vector<int64_t> GanConfig::widths() {
  const std::string key = "block_out_channels";
  std::vector<int64_t> widths = list(key, kMaxWidth, kMaxBlocks);
  if (widths.empty()) fail(key, "is missing; it must list the channels of each block");
  return widths;
}

int64_t GanConfig::num_classes() {
  const nlohmann::json* value = find("num_class_embeds");
  if (value == nullptr || value->is_null()) return 0;
  return to_whole("num_class_embeds", *value, 1, kMaxClasses);
}

std::string GanConfig::start() { return choice("initialization", start_names()); }

void GanConfig::finish() const {
  const std::vector<std::string> known(asked_.begin(), asked_.end());
  for (const auto& [key, value] : json_.items())
    if (!key.starts_with('_') && !asked_.contains(key)) {
      for (const RefusedName& word : kRefused)
        if (key == word.name) fail(key, std::string(word.why));
      fail(key, fmt::format("{} has no such key{}", json_.value("_class_name", "the network"),
                            did_you_mean(key, known)));
    }
}

nlohmann::ordered_json class_count(int64_t num_classes) {
  return num_classes == 0 ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(num_classes);
}

int64_t group_count(int64_t channels) { return std::min(kMaxGroups, channels); }

void require_groups(const GanConfig& config, const std::vector<int64_t>& widths) {
  for (const int64_t width : widths)
    if (width % group_count(width) != 0)
      config.fail("block_out_channels",
                  fmt::format("{} channels cannot be normalised in {} groups; take a multiple of "
                              "{}, or \"norm\": \"none\"",
                              width, group_count(width), kMaxGroups));
}

}  // namespace sfumato
