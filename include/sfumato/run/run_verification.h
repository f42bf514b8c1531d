#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "sfumato/privacy/ledger.h"
#include "sfumato/privacy/mechanism.h"
#include "sfumato/run/run_directory.h"

namespace sfumato {

/// One thing that was looked at.
struct RunCheck {
  enum class Outcome { kPassed, kFailed, kNotChecked };
  std::string name;
  Outcome outcome = Outcome::kPassed;
  std::string detail;                 ///< what was found, or why it was not checked
  std::vector<std::string> problems;  ///< of a failed one: file, defect, remedy; one line each
};
/// "passed", "failed", "not checked".
std::string to_string(RunCheck::Outcome outcome);

/// What a run's ledger proves, and whether everything else in the run agrees with it.
struct RunVerification {
  LedgerSummary ledger;
  std::optional<MechanismPlan> plan;          ///< frozen in the ledger; empty if it is no plan
  std::optional<PrivacyStatement> statement;  ///< of what is charged; empty without privacy
  double epsilon_planned = 0;                 ///< once all steps are taken
  std::optional<std::string> binding;         ///< run.sweep, where there is a configuration
  std::vector<RunCheck> checks;
  std::vector<std::string> problems() const;
  /// "DAMAGED" with a problem; else "NOT PRIVATE", "VOID" (noise from a test key) or "sound".
  std::string verdict() const;
  /// The verdict and how much of it rests on nothing: "sound (2 checks not made)".
  std::string headline() const;
};

struct RunVerificationOptions {
  std::filesystem::path run;  ///< run directory, or a ledger file
  /// SHA-256 of a ledger line that was noted elsewhere and must be there.
  std::string expected_head;
  std::filesystem::path store;  ///< empty: data.store of the run's config.yaml
  bool ledger_only = false;     ///< leaves out all but the ledger's own checks
  bool release_only = false;    ///< and all but those and the release's: card, weights, results
  std::vector<StageFile> stages = stage_files();  ///< whose results a release may hold
};

/// Recomputes epsilon from the ledger alone and compares:
///   "ledger"         every line: seals, chain, order, counts; the head noted elsewhere
///   "mechanism"      the frozen plan is one, and allows no more charges than it has steps
///   "privacy card"   release/privacy_card.json says of the claim what the ledger proves, in every
///                    field that follows from it, and privacy_card.md and report.html, which must
///                    be there, say the same
///   "weights"        the released weights are those that the card was written for, that the ledger
///                    notes as released, and that the last checkpoint's average holds
///   "public facts"   what the card says of the data is what the ledger notes of the release, and
///                    what the record store says, where it is at hand
///   "release files"  release/ holds the files that the ledger notes, and none that is no part of a
///                    release
///   "stage results"  what the stages released is what the ledger noted of them
///   "configuration"  config.yaml sets no other mechanism than the frozen one; numbers that it
///                    leaves to calibration are not compared
///   "initial weights"  those that config.yaml names are what the ledger says the run started from
///   "checkpoints"    every checkpoint saw a head of this chain, and steps and lines grow together,
///                    and its tensors are those that the ledger noted
///   "selection"      a run of a private selection that released anything is marked as its winner,
///   by
///                    a mark of this run and of a line of its ledger
///   "witness"        the record store's witness of the run is there and not ahead of the ledger
/// A part that is missing is not checked: a release that was shared has no private/. DataError if
/// there is no ledger.
RunVerification verify_run(const RunVerificationOptions& options);

}  // namespace sfumato
