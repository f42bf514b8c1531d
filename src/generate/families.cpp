#include "sfumato/generate/families.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include "sfumato/config/config.h"
#include "sfumato/core/error.h"
#include "sfumato/core/text.h"
#include "sfumato/generate/diffusion/family.h"
#include "sfumato/generate/gan/family.h"

namespace sfumato {

std::vector<Family>& families() {
  static std::vector<Family> table = {diffusion_family(), gan_family()};
  return table;
}

const Family& family_of(const Config& config) {
  std::vector<std::string> names;
  for (const Family& family : families()) {
    if (family.name == config.model.family()) return family;
    names.push_back(family.name);
  }
  throw UsageError(fmt::format("model.family: there is no family of generators '{}'{}",
                               config.model.family(), did_you_mean(config.model.family(), names)));
}

const Family* family_in(const std::filesystem::path& folder) {
  for (const Family& family : families())
    if (family.holds(folder)) return &family;
  return nullptr;
}

std::unique_ptr<Generator> make_generator(const Config& config, const Placement& placement) {
  return family_of(config).make(config, placement);
}

std::unique_ptr<Generator> open_generator(const std::filesystem::path& folder, Config& config,
                                          const Placement& placement) {
  const Family* family = family_in(folder);
  if (family == nullptr)
    throw DataError(fmt::format("'{}' holds no generator", folder.string()));
  return family->open(folder, config, placement);
}

void adopt_pretrained_settings(Config& config, bool resume) {
  if (!config.model.init().empty()) family_of(config).adopt_settings(config, resume);
}

void adopt_pretrained_image_settings(Config& config) {
  if (!config.model.init().empty()) family_of(config).adopt_image_settings(config);
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
