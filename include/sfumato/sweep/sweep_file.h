#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "sfumato/config/config.h"

namespace sfumato {

/// What a sweep is for, which decides what may be seen of its runs and what they cost together.
enum class SweepPurpose {
  kPublicTuning,      ///< on public images: everything may be seen, nothing is charged
  kDisjointSplit,     ///< on a part of the private records that the final run never sees
  kPrivateSelection,  ///< only the best leaves, by the accounting of private selection
  kAblation           ///< on private images, every run charged in full
};
template <>
struct EnumNames<SweepPurpose> {
  static constexpr std::string_view kWhat = "purpose of a sweep";
  static constexpr EnumName<SweepPurpose> kTable[] = {
      {SweepPurpose::kPublicTuning, "public_tuning"},
      {SweepPurpose::kDisjointSplit, "disjoint_split"},
      {SweepPurpose::kPrivateSelection, "private_selection"},
      {SweepPurpose::kAblation, "ablation"}};
};

// clang-format off
struct SweepSettings : Section {
  explicit SweepSettings(SettingsTree* tree);

  Setting<std::string> name{this, "name", "", any_value(), "",
      "Name of the sweep, of letters, digits, '-' and '_': its plan and runs lie in sweeps/NAME."};
  Setting<std::string> base{this, "base", "", any_value(), "",
      "Configuration that all runs have in common, such as configs/quickstart.yaml."};
  Setting<SweepPurpose> purpose{this, "purpose", SweepPurpose::kAblation,
      "What the sweep is for; it has to be said. public_tuning: public images, everything may be "
      "seen; disjoint_split: a part of the private records that the final run never sees; "
      "private_selection: only the best run leaves; ablation: every run is charged in full."};
  Setting<bool> store_is_public{this, "store_is_public", false, any_value(), "",
      "States that data.store holds public images alone, which public_tuning needs. Plan and "
      "reports say on whose word."};
  FreeSetting vary{this, "vary", "map of settings to lists of values",
      "Settings whose values are crossed, as optimizer.learning_rate: [1e-3, 2e-3]."};
  FreeSetting zip{this, "zip", "list of maps of settings to lists of values",
      "Groups of settings that move together: their lists are equally long."};
  FreeSetting exclude{this, "exclude", "list of maps of settings to values",
      "Combinations that are left out: every run that has all the values of one of the maps."};
  Setting<int64_t> repeat{this, "repeat", 1, between(1, 1000), "",
      "Runs of each combination, with run.seed, run.seed + 1, and so on."};
  Setting<int64_t> samples{this, "samples", 0, between(0, 1'000'000), "images",
      "Images that are drawn of every finished run, into its folder corpus/; 0 draws none."};
  Setting<std::vector<std::string>> score{this, "score", {}, any_value(), "",
      "Command that is run for every finished run and prints a number, the larger the better, as "
      "its last word: [python3, score.py, '{release}']. {run} is the run's folder, {release} what "
      "it released, {corpus} its images. It must look at the last two and at public data alone; "
      "{run}, which holds private numbers, is refused but for public_tuning."};
  Setting<bool> score_is_public{this, "score_is_public", false, any_value(), "",
      "States what a score needs of every purpose but public_tuning and no program can check: its "
      "command looks at what it is given, {release} and {corpus}, and at public data alone."};
  Setting<double> tuning_share{this, "tuning_share", 0.1, strictly_between(0, 1), "",
      "disjoint_split: share of the records that the sweep's runs see, taken by a public hash of "
      "their places."};
};

struct SweepSelectionSettings : Section {
  explicit SweepSelectionSettings(SettingsTree* tree);

  Setting<double> mean_runs{this, "mean_runs", 0.0, at_least(0), "runs",
      "private_selection: runs on average, at least 1. The base is told of it: its "
      "mechanism.target_epsilon is that of the whole selection."};
  Setting<SelectionFamily> law{this, "law", SelectionFamily::kLogarithmic,
      "Law of the number of runs, as mechanism.selection.law."};
  Setting<double> eta{this, "eta", 0.5, between(0, 100), "",
      "Shape of the law negative_binomial."};
  Setting<int64_t> agree_up_to{this, "agree_up_to", 0, at_least(0), "runs",
      "Runs that you agree to, at least as many as the law's 99 %: the number is drawn in secret and "
      "never cut, so that the plan is what can be refused, not the draw."};
};
// clang-format on

/// The settings of a sweep's file.
struct SweepConfig : SettingsTree {
  SweepSettings sweep{this};
  SweepSelectionSettings selection{this};  // sweep.selection
};

/// A value of a setting as one line of YAML.
struct Assignment {
  std::string key, value;
  bool operator==(const Assignment&) const = default;
};

/// One setting with its values, or several that move together: a point sets them all.
struct SweepAxis {
  std::vector<std::vector<Assignment>> points;
};

/// A sweep as its file describes it, checked.
struct SweepFile {
  std::filesystem::path path;
  std::shared_ptr<SweepConfig> settings;
  SettingValues base;           ///< what the base sets, itself checked
  std::vector<SweepAxis> axes;  ///< those of vary in the file's order, then those of zip
  std::vector<std::vector<Assignment>> exclude;
  /// Of disjoint_split, once it is planned: the store that was split, and what the final run takes.
  std::string whole_store, final_store;

  SweepPurpose purpose() const { return settings->sweep.purpose(); }
  const std::string& name() const { return settings->sweep.name(); }
};

/// Reads and checks a sweep's file and its base. UsageError lists every mistake at once, as those
/// of a configuration: a key that is none, a value out of range, lists of unequal length, a setting
/// that decides what the guarantee is where the purpose does not let it vary.
SweepFile read_sweep_file(const std::filesystem::path& path);

/// Every setting of a sweep's file with its documentation.
std::string documented_sweep_yaml();

}  // namespace sfumato
