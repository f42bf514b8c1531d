#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "sfumato/privacy/selection.h"
#include "sfumato/sweep/expansion.h"

namespace sfumato {

/// A sweep, expanded once and frozen in FOLDER/plan.jsonl: a line of what all runs have in common,
/// one for each run, and the SHA-256 of the lines before it, which is the plan's name wherever a
/// run is bound to it.
struct SweepPlan {
  std::filesystem::path folder;
  nlohmann::ordered_json common;  ///< the first line
  std::vector<SweepRun> runs;     ///< of a private selection: what its runs are drawn from
  std::string hash;               ///< once frozen

  SweepPurpose purpose() const;
  std::string name() const { return common.at("name").get<std::string>(); }
  std::int64_t records_per_unit() const {
    return common.at("records_per_unit").get<std::int64_t>();
  }
  /// Whom the statements of its runs protect, in words.
  std::string unit() const { return common.at("unit").get<std::string>(); }
  /// The law of a private selection, which others do not have.
  Selection selection() const;
  /// The record store of the runs, all of which have the same.
  std::filesystem::path store() const { return common.at("store").get<std::string>(); }

  std::filesystem::path file() const { return folder / "plan.jsonl"; }
  std::filesystem::path release() const { return folder / "release"; }  ///< of a selection's winner
  /// In its place, once a selection is over without a release.
  std::filesystem::path no_release() const { return folder / "no_release.txt"; }
  /// What may not leave: locks, logs, settings of runs. Mode 0700.
  std::filesystem::path private_folder() const { return folder / "private"; }
};

/// Where the sweep of this name lies, under `root` (the folder in which `sweeps/` is made).
std::filesystem::path sweep_folder(const std::string& name,
                                   const std::filesystem::path& root = "sweeps");

/// The plan of a file as it is now, without hash; writes nothing. Errors as expand; DataError where
/// the record store is not there; PrivacyError where the purpose does not allow what the file asks
/// for.
SweepPlan plan_of(const SweepFile& file);

/// The frozen plan, if there is one. DataError for one that was edited or is damaged.
std::optional<SweepPlan> read_sweep_plan(const std::filesystem::path& folder);

/// Computes what the runs cost and writes the plan, which then has its hash. Two that do so at a
/// time write the same.
void freeze(SweepPlan& plan);

/// How `now` differs from the frozen plan, a line each: "optimizer.learning_rate in the base: 0.001
/// in the plan, 0.002 now". Empty where it does not.
std::vector<std::string> plan_differences(const SweepPlan& frozen, const SweepPlan& now);

/// The frozen plan of this file; frozen now where there is none and `may_freeze`. UsageError with
/// the difference where the file or its base has changed since.
SweepPlan open_sweep(const std::filesystem::path& file, bool may_freeze);

}  // namespace sfumato
