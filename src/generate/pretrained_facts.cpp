#include "sfumato/generate/pretrained_facts.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>
#include <stdexcept>

#include "sfumato/config/config.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/core/text.h"

namespace sfumato {
namespace {

using Fact = PretrainedFacts::Fact;
using Unusable = PretrainedFacts::Unusable;

/// Ends the provenance of what training adopted.
constexpr const char* kAdopted = " of model.init";

SettingBase& setting_of(Config& config, const std::string& key) {
  SettingBase* setting = config.find(key);
  if (setting == nullptr) throw std::logic_error("no setting " + key);
  return *setting;
}

/// Equal but for the rounding of a float32 that a file went through.
bool same_value(const std::string& a, const std::string& b) {
  if (a == b) return true;
  const std::optional<double> x = parse_double(a), y = parse_double(b);
  constexpr double kRounding = 1e-6;
  return x && y && std::abs(*x - *y) <= kRounding * std::max(std::abs(*x), std::abs(*y));
}

/// The value as the setting would write it; DataError where the setting does not take it.
std::string checked_value(const Fact& fact) {
  Config scratch;
  SettingBase& setting = setting_of(scratch, fact.setting);
  if (const auto mistake = setting.assign_text(fact.value, fact.source))
    throw DataError(fmt::format("'{}': {}, which {} cannot be: {}", fact.source, fact.words,
                                fact.setting, mistake->message));
  return setting.value_yaml();
}

bool differs(const Fact& fact, const SettingBase& setting) {
  return !same_value(checked_value(fact), setting.value_yaml());
}

bool is_overruled(const Config& config, const std::string& key) {
  return std::ranges::find(config.model.overrule_init(), key) != config.model.overrule_init().end();
}

/// β are of no account to the cosine schedule.
bool matters(const Fact& fact, const Config& config) {
  return config.diffusion.schedule() != BetaSchedule::kSquaredCosCapV2 ||
         (fact.setting != "diffusion.beta_start" && fact.setting != "diffusion.beta_end");
}

/// What is wrong with training on values in [-1, 1] what will be drawn with values of this range.
std::string range_defect(const Fact& fact) {
  const std::optional<double> range = parse_double(fact.value);
  if (fact.setting != "sample.clip_sample_range" || !range) return {};
  if (*range > 1)
    log_warning(
        fmt::format("'{}': {}; the images here have values in [-1, 1]", fact.source, fact.words));
  if (*range >= 1) return {};
  return fmt::format("the images are trained with values in [-1, 1], but in '{}' {}", fact.source,
                     fact.words);
}

/// A setting that disagrees with a file, and whether somebody gave it.
struct Contradiction {
  std::string what;
  std::string key;
  bool is_given = false;
};

/// Settings can be deleted where they exist; otherwise the files are at odds with each other, or
/// with what is done here, and are overruled or corrected.
std::string remedies(const std::vector<Contradiction>& contradictions) {
  std::vector<std::string> given, others;
  for (const Contradiction& found : contradictions) {
    std::vector<std::string>& keys = found.is_given ? given : others;
    if (std::ranges::find(keys, found.key) == keys.end()) keys.push_back(found.key);
  }
  std::vector<std::string> all = given;
  for (const std::string& key : others)
    if (std::ranges::find(given, key) == given.end()) all.push_back(key);
  std::string text;
  if (!given.empty())
    text +=
        fmt::format("delete {}{} to take what the files say; ",
                    given.size() == 1 ? "the setting " : "the settings ", fmt::join(given, ", "));
  if (!others.empty())
    text += fmt::format("no setting is at fault for {}: correct the files if they are wrong; ",
                        fmt::join(others, ", "));
  return text +
         fmt::format(
             "where it is so on purpose, set what holds and say so: model.overrule_init=[{}]",
             fmt::join(all, ", "));
}

}  // namespace

bool contradicts(const Fact& fact, const Config& config) {
  const SettingBase* setting = config.find(fact.setting);
  if (setting == nullptr) throw std::logic_error("no setting " + fact.setting);
  return fact.binding && matters(fact, config) && differs(fact, *setting);
}

void take_fact(const Fact& fact, const std::string& provenance, Config& config) {
  checked_value(fact);
  if (const auto mistake = setting_of(config, fact.setting).assign_text(fact.value, provenance))
    throw std::logic_error(mistake->message);
}

void adopt_for_training(const PretrainedFacts& facts, Config& config) {
  for (const Unusable& unusable : facts.unusable)
    if (unusable.binding && !is_overruled(config, unusable.setting))
      throw DataError(
          fmt::format("{}; to train otherwise on purpose, set {} and "
                      "model.overrule_init=[{}]",
                      unusable.message, unusable.setting, unusable.setting));
  std::vector<Contradiction> contradictions;
  for (const Fact& fact : facts.facts) {
    // How noisy a step of ddpm is says nothing about the network.
    if (fact.setting == "sample.variance" || is_overruled(config, fact.setting)) continue;
    SettingBase& setting = setting_of(config, fact.setting);
    std::string defect = setting.is_default() ? range_defect(fact) : "";
    if (!setting.is_default() && contradicts(fact, config))
      defect = fmt::format("{} is {} ({}), but in '{}' {}", fact.setting, setting.value_yaml(),
                           setting.provenance(), fact.source, fact.words);
    if (!defect.empty()) {
      contradictions.push_back(
          {defect, fact.setting, !setting.is_default() && !is_adopted(setting)});
    } else if (setting.is_default()) {
      // The file by its name: where it lies need not be known to those who read the run.
      take_fact(fact, std::filesystem::path(fact.source).filename().string() + kAdopted, config);
    }
  }
  if (contradictions.empty()) return;
  std::string list;
  for (const Contradiction& found : contradictions) list += "\n  " + found.what;
  throw UsageError(
      fmt::format("the settings and the files of model.init '{}' contradict each "
                  "other:{}\n{}",
                  config.model.init(), list, remedies(contradictions)));
}

bool is_adopted(const SettingBase& setting) { return setting.provenance().ends_with(kAdopted); }

}  // namespace sfumato
