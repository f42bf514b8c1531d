#include "sfumato/data/inspect_store.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <vector>

#include "holdout_pair.h"
#include "sfumato/core/text.h"
#include "sfumato/data/record_store.h"
#include "sfumato/io/json_file.h"
#include "store_format.h"

namespace sfumato {

namespace {

using Json = nlohmann::json;

/// A value of the manifest for people: no quotes, no brackets; "no" for nothing set.
std::string plain_text(const nlohmann::json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (value.is_null()) return "none";
  if (!value.is_structured()) return value.dump();
  std::string text;
  for (const auto& [key, each] : value.items())
    text += fmt::format("{}{}{}", text.empty() ? "" : ", ",
                        value.is_object() ? key + " " : std::string(), plain_text(each));
  return text.empty() ? "none" : text;
}

/// Which of two stores of one preparation this is, "" if of none.
std::string holdout_lines(const nlohmann::json& preparation) {
  for (const bool held_out : {false, true}) {
    const char* member = held_out ? kHeldOutOf : kHoldout;
    if (!preparation.contains(member) || !preparation.at(member).is_object()) continue;
    const auto& pair = preparation.at(member);
    return fmt::format("    {:<16} {} by {}, {}\n", "holdout",
                       plain_text(pair.value("share", Json())),
                       plain_text(pair.value("by", Json())),
                       held_out ? "of which this store is the held-out part: nothing trains on it"
                                : "in the store beside this one, STORE-holdout");
  }
  return "";
}

/// Both stores of one preparation have the same counts. In the one that was held out, what the
/// other has kept must not look as its own.
std::string count_lines(const nlohmann::json& preparation) {
  if (!preparation.contains("counts")) return "";
  const bool held_out = preparation.contains(kHeldOutOf);
  std::string text =
      held_out ? "  counts of the preparation, of this store and the other one\n" : "";
  for (const auto& [key, value] : preparation.at("counts").items()) {
    const bool of_the_other = held_out && (key == "kept" || key == "users");
    text += fmt::format("    {:<16} {}\n",
                        key == "held_out" && held_out ? "held_out (here)"
                        : of_the_other                ? key + " (other)"
                                                      : key,
                        plain_text(value));
  }
  return text;
}

}  // namespace

std::string describe_store(const std::filesystem::path& path) {
  const RecordStore store = RecordStore::open(path);
  store.verify_checksums();
  const double bytes =
      static_cast<double>(store.count() * store.height() * store.width() * store.channels());
  std::string text = fmt::format("record store '{}' (private)\n", path.string());
  text += fmt::format("  records          {} of {}x{}, {} ({})\n", store.count(), store.width(),
                      store.height(), store.channels() == 1 ? "grey" : "RGB", human_bytes(bytes));
  text += fmt::format("  unit of privacy  {}\n", store.unit());
  text += fmt::format("  manifest hash    {}\n", store.manifest_hash());
  text += "  checksums        match\n";
  if (store.num_classes() == 0) {
    text += "  classes          none (unconditional)\n";
  } else {
    std::vector<std::int64_t> counts(static_cast<std::size_t>(store.num_classes()));
    for (std::int64_t i = 0; i < store.count(); ++i) ++counts[store.label(i)];
    text += fmt::format("  classes          {}, named by: {}\n", store.num_classes(),
                        store.layout().class_names_from);
    for (std::size_t c = 0; c < counts.size(); ++c)
      text += fmt::format("    {:>4}  {:<20}  {}\n", c, store.class_names()[c], counts[c]);
  }
  const nlohmann::json manifest = read_json(path / store_format::kManifest);
  text += fmt::format("  prepared by      {}\n", manifest.value("program", std::string("?")));
  const auto& preparation = manifest.at("preparation");
  text += "  preparation\n";
  for (const auto& [key, value] : preparation.items())
    if (!value.is_object()) text += fmt::format("    {:<16} {}\n", key, plain_text(value));
  return text + holdout_lines(preparation) + count_lines(preparation);
}

}  // namespace sfumato
