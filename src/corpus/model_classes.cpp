#include "corpus/model_classes.h"

#include <fmt/format.h>

#include <algorithm>

#include "sfumato/config/config.h"
#include "sfumato/core/class_name.h"
#include "sfumato/core/error.h"
#include "sfumato/core/printable.h"
#include "sfumato/core/text.h"

namespace sfumato {
namespace {

using Json = nlohmann::ordered_json;

/// A list of class names among the card's public facts; empty where it has none.
std::vector<std::string> names_on(const Json& card, const char* key) {
  std::vector<std::string> names;
  if (!card.contains("public_facts") || !card["public_facts"].is_object()) return names;
  const Json& facts = card["public_facts"];
  if (!facts.contains(key)) return names;
  const auto refuse = [&](const std::string& what) {
    throw DataError(
        fmt::format("the privacy card beside the network: public_facts.{} {}", key, what));
  };
  if (!facts[key].is_array()) refuse("is no list of names");
  for (const Json& name : facts[key]) {
    if (!name.is_string()) refuse("is no list of names");
    names.push_back(name.get<std::string>());
    if (const std::string defect = class_name_defect(names.back()); !defect.empty())
      refuse(fmt::format("has the name '{}', which {}", printable(names.back()), defect));
  }
  return names;
}

/// Marks what the card says of classes without images, and rows beyond the classes of the training.
void mark_untrained(SamplingModel& model) {
  model.may_be_untrained.assign(model.class_names.size(), false);
  for (const std::string& name : names_on(model.card, "classes_that_may_be_empty")) {
    const auto at = std::ranges::find(model.class_names, name);
    if (at != model.class_names.end())
      model.may_be_untrained[static_cast<std::size_t>(at - model.class_names.begin())] = true;
    else if (name == "*")
      model.any_may_be_untrained = true;
  }
  const Json facts = model.card.value("public_facts", Json());
  if (!facts.is_object() || !facts.contains("num_classes") ||
      !facts["num_classes"].is_number_integer())
    return;
  const auto trained = facts["num_classes"].get<int64_t>();
  for (int64_t label = trained; trained > 0 && label < model.num_classes; ++label)
    model.may_be_untrained[static_cast<std::size_t>(label)] = true;
}

}  // namespace

void name_classes(const Config& config, SamplingModel& model) {
  const auto classes = static_cast<std::size_t>(model.num_classes);
  if (classes == 0) return;
  const std::vector<std::string> told = names_on(model.card, "class_names");
  const std::vector<std::string>& given = config.data.class_names();
  if (!told.empty() && told.size() != classes)
    throw UsageError(fmt::format(
        "{} classes are to be drawn, and the privacy card beside the network names {}; set "
        "data.num_classes to their number, or leave it out",
        classes, told.size()));
  if (!given.empty() && given.size() != classes)
    throw UsageError(
        fmt::format("data.class_names has {} names for {} classes", given.size(), classes));
  if (!given.empty() && !told.empty() && given != told) {
    const auto at =
        static_cast<std::size_t>(std::ranges::mismatch(given, told).in1 - given.begin());
    throw UsageError(fmt::format(
        "data.class_names calls class {} '{}', and the privacy card beside the network '{}'; a "
        "corpus keeps the names that the network was trained with, so leave data.class_names out",
        at, printable(given[at]), printable(told[at])));
  }
  model.class_names = !given.empty() ? given : told;
  for (std::size_t c = model.class_names.size(); c < classes; ++c)
    model.class_names.push_back(std::to_string(c));
  mark_untrained(model);
}

}  // namespace sfumato
