#include "sfumato/sweep/sweep_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sweep/score_check.h"
#include "sweep/sweep_axes.h"

namespace sfumato {
namespace {

bool is_sweep_name(const std::string& name) {
  return !name.empty() && name.size() <= 100 && name.front() != '-' &&
         std::ranges::all_of(name, [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '-' || c == '_';
         });
}

/// What a private selection needs, and others have no use for.
template <typename Add>
void check_selection_settings(const SweepFile& file, const Add& add) {
  const SweepSelectionSettings& selection = file.settings->selection;
  if (file.purpose() != SweepPurpose::kPrivateSelection) {
    for (const SettingBase* setting : selection.settings())
      if (!setting->is_default())
        add(*setting,
            fmt::format("{} has no use but for the purpose private_selection", setting->key()));
    return;
  }
  const SweepSettings& sweep = file.settings->sweep;
  if (selection.mean_runs() < 1)
    add(selection.mean_runs,
        "sweep.selection.mean_runs is missing: how many runs there are on average, at least 1");
  if (sweep.score().empty())
    add(sweep.score,
        "sweep.score is missing: by what the best run of a private_selection is known");
  if (sweep.repeat() > 1)
    add(sweep.repeat,
        "sweep.repeat has no use in a private_selection, whose law says how many runs there are");
}

void check_sweep_settings(const SweepFile& file, std::vector<std::string>& mistakes) {
  const SweepSettings& sweep = file.settings->sweep;
  const auto add = [&](const SettingBase& setting, const std::string& message) {
    mistakes.push_back(fmt::format(
        "{}: {}", setting.is_default() ? file.path.string() : setting.provenance(), message));
  };
  if (!is_sweep_name(sweep.name()))
    add(sweep.name, fmt::format("sweep.name must be letters, digits, '-' and '_', got '{}'; it "
                                "names the folder sweeps/NAME",
                                sweep.name()));
  if (sweep.purpose.is_default())
    add(sweep.purpose,
        "sweep.purpose is missing, which decides what may be seen of the runs and what they cost; "
        "it is " +
            sweep.purpose.range().describe());
  if (sweep.base().empty())
    add(sweep.base, "sweep.base is missing: the configuration that all runs have in common");
  check_selection_settings(file, add);
  if (!sweep.tuning_share.is_default() && file.purpose() != SweepPurpose::kDisjointSplit)
    add(sweep.tuning_share, "sweep.tuning_share has no use but for the purpose disjoint_split");
}

/// Every run of a selection has it in its mechanism, and only those.
void tell_selection(SweepFile& file, std::vector<std::string>& mistakes) {
  for (const auto& [key, value] : file.base)
    if (key.starts_with("mechanism.selection."))
      mistakes.push_back(
          fmt::format("{}: {} is set by the sweep, for the purpose private_selection "
                      "(sweep.selection); leave it out of the base",
                      file.settings->sweep.base(), key));
  if (file.purpose() != SweepPurpose::kPrivateSelection) return;
  const SweepSelectionSettings& selection = file.settings->selection;
  file.base["mechanism.selection.mean_runs"] = selection.mean_runs.value_yaml();
  file.base["mechanism.selection.law"] = selection.law.value_yaml();
  if (selection.law() == SelectionFamily::kNegativeBinomial)
    file.base["mechanism.selection.eta"] = selection.eta.value_yaml();
}

/// The base's own mistakes come with its own name and lines.
void read_base(SweepFile& file, std::vector<std::string>& mistakes) {
  const std::string& base = file.settings->sweep.base();
  if (base.empty()) return;
  try {
    file.base = given_settings(*load_config(base, {}));
    tell_selection(file, mistakes);
    const auto candidates = file.base.find("mechanism.candidates");
    if (candidates != file.base.end() && candidates->second != "1")
      mistakes.push_back(
          fmt::format("{}: mechanism.candidates is {}, and a sweep counts its runs itself; set it "
                      "to 1",
                      base, candidates->second));
  } catch (const UsageError& error) {
    mistakes.push_back(error.what());
  }
}

}  // namespace

SweepSettings::SweepSettings(SettingsTree* tree)
    : Section(tree, "sweep", "Many runs from one file, planned once and frozen.") {}

SweepSelectionSettings::SweepSelectionSettings(SettingsTree* tree)
    : Section(tree, "sweep.selection", "Of a private_selection: how many runs, by which law.") {}

SweepFile read_sweep_file(const std::filesystem::path& path) {
  SweepFile file;
  file.path = path;
  file.settings = std::make_shared<SweepConfig>();
  std::vector<std::string> mistakes;
  try {
    mistakes = file.settings->read_yaml(read_file(path), path.string());
  } catch (const DataError& error) {
    throw UsageError(error.what());
  }
  check_sweep_settings(file, mistakes);
  read_base(file, mistakes);
  if (mistakes.empty()) check_score(file, mistakes);
  read_axes(file, mistakes);
  if (!mistakes.empty()) throw UsageError(fmt::format("{}", fmt::join(mistakes, "\n")));
  return file;
}

std::string documented_sweep_yaml() { return base_yaml(SweepConfig()); }

}  // namespace sfumato
