#include "sfumato/generate/families.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <fnmatch.h>

#include <stdexcept>
#include <utility>

#include "sfumato/config/config.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/core/text.h"
#include "sfumato/generate/diffusion/family.h"
#include "sfumato/generate/gan/family.h"
#include "sfumato/io/weights_file.h"

namespace sfumato {
namespace {

std::vector<Family>& table() {
  static std::vector<Family> rows = {diffusion_family(), gan_family()};
  return rows;
}

/// Settings without effect in `family` that are not their defaults: those of other families lie in
/// the sections of their names. A run's configuration names every setting, so that one which stands
/// there with its default was asked for by nobody.
std::vector<const SettingBase*> settings_without_effect(const Config& config,
                                                        const Family& family) {
  std::vector<const SettingBase*> found;
  const auto note = [&](const SettingBase* setting) {
    if (setting->value_yaml() != setting->default_yaml()) found.push_back(setting);
  };
  for (const Family& other : families()) {
    const Section* section = other.name == family.name ? nullptr : config.find_section(other.name);
    if (section == nullptr) continue;
    for (const SettingBase* setting : section->settings()) note(setting);
  }
  for (const std::string& key : family.without_effect) note(config.find(key));
  return found;
}

void refuse_settings_without_effect(const Config& config, const Family& family) {
  std::vector<std::string> mistakes;
  for (const SettingBase* setting : settings_without_effect(config, family))
    mistakes.push_back(fmt::format(
        "{}: {} is {}, and has no effect with model.family {} ({}); remove it, or set it to its "
        "default, {}",
        setting->provenance(), setting->key(), setting->value_yaml(), family.name,
        config.model.family.provenance(), setting->default_yaml()));
  if (!mistakes.empty()) throw UsageError(fmt::format("{}", fmt::join(mistakes, "\n")));
}

/// UsageError where model.init holds what another family would take.
void refuse_init_of_others(const Config& config, const Family& family) {
  const Setting<std::string>& init = config.model.init;
  if (!std::filesystem::exists(init()) || family.holds(init())) return;
  const Family* other = family_in(init());
  if (other == nullptr) return;  // the family says what it misses
  throw UsageError(
      fmt::format("{}: {}: '{}' holds a network of the family {}, and model.family is {} ({}); set "
                  "model.family={}, or name a folder that holds {}",
                  init.provenance(), init.key(), init(), other->name, family.name,
                  config.model.family.provenance(), other->name, family.layout));
}

}  // namespace

const std::vector<Family>& families() { return table(); }

void add_family(Family family) {
  for (const Family& other : families())
    if (other.name == family.name)
      throw std::logic_error("two families of generators are called " + family.name);
  table().push_back(std::move(family));
}

const Family& family_of(const Config& config) {
  const Setting<std::string>& setting = config.model.family;
  std::vector<std::string> names;
  for (const Family& family : families()) {
    if (family.name == setting()) return family;
    names.push_back(family.name);
  }
  throw UsageError(fmt::format("{}: {}: {}", setting.provenance(), setting.key(),
                               one_of(names).mistake(setting()).value_or("")));
}

const Family* family_in(const std::filesystem::path& folder) {
  for (const Family& family : families())
    if (family.holds(folder)) return &family;
  return nullptr;
}

std::string known_layouts() {
  std::vector<std::string> layouts;
  for (const Family& family : families())
    layouts.push_back(fmt::format("{}: {}", family.name, family.layout));
  return fmt::format("{}", fmt::join(layouts, "; "));
}

std::unique_ptr<Generator> make_generator(const Config& config, const Placement& placement) {
  const Family& family = family_of(config);
  // Refused where a run begins; one that began with them goes on.
  for (const SettingBase* setting : settings_without_effect(config, family))
    log_warning(fmt::format("{} is {} ({}), and has no effect with model.family {}", setting->key(),
                            setting->value_yaml(), setting->provenance(), family.name));
  return family.make(config, placement);
}

std::unique_ptr<Generator> open_generator(const std::filesystem::path& folder, Config& config,
                                          const Placement& placement) {
  (void)family_of(config);  // the folder says which it is; a wrong name is a mistake all the same
  const Family* family = family_in(folder);
  if (family == nullptr) {
    refuse_unconverted_weights(folder);
    throw DataError(
        fmt::format("'{}' holds no generator of a known family ({}); name a folder that holds what "
                    "one of these looks for",
                    folder.string(), known_layouts()));
  }
  return family->open(folder, config, placement);
}

void adopt_pretrained_settings(Config& config, bool resume) {
  const Family& family = family_of(config);
  if (!resume) refuse_settings_without_effect(config, family);
  if (config.model.init().empty()) return;
  refuse_init_of_others(config, family);
  family.adopt_settings(config, resume);
}

void adopt_pretrained_image_settings(Config& config) {
  const Family& family = family_of(config);
  if (config.model.init().empty()) return;
  refuse_init_of_others(config, family);
  family.adopt_image_settings(config);
}

void freeze_unmatched(const std::vector<Parameter*>& parameters,
                      const std::vector<std::string>& patterns) {
  std::vector<bool> used(patterns.size(), false);
  std::vector<std::string> names;
  for (Parameter* parameter : parameters) {
    names.push_back(parameter->name);
    bool train = false;
    for (size_t i = 0; i < patterns.size(); ++i) {
      if (::fnmatch(patterns[i].c_str(), parameter->name.c_str(), 0) != 0) continue;
      train = used[i] = true;
    }
    if (!train) set_trainable(*parameter, false);
  }
  for (size_t i = 0; i < patterns.size(); ++i)
    if (!used[i])
      throw UsageError(fmt::format("model.trainable: no parameter matches '{}'{}", patterns[i],
                                   did_you_mean(patterns[i], names)));
}

}  // namespace sfumato
