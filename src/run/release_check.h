#pragma once
#include <fmt/format.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "sfumato/run/run_verification.h"

namespace sfumato {

inline RunCheck not_checked(const std::string& name, const std::string& why) {
  return {name, RunCheck::Outcome::kNotChecked, why, {}};
}

inline RunCheck outcome_of(const std::string& name, const std::string& detail,
                           std::vector<std::string> problems) {
  if (problems.empty()) return {name, RunCheck::Outcome::kPassed, detail, {}};
  const std::string count =
      problems.size() == 1 ? "1 problem" : fmt::format("{} problems", problems.size());
  return {name, RunCheck::Outcome::kFailed, count, std::move(problems)};
}

/// The folder of the weights among the files of a release (ReleasedFiles::files): that of the
/// config.json; unet where an older ledger notes none.
std::string weights_folder(const std::map<std::string, std::string>& files);
/// What files are noted that no release has, whatever a ledger says; more networks than one.
std::vector<std::string> layout_defects(const std::map<std::string, std::string>& files);

/// "weights": the released weights are those of the card, those whose SHA-256 the ledger notes as
/// released, and the average in the last checkpoint of `run`, whose tensors the ledger notes too;
/// so are those of a discriminator that the ledger notes as released. Not checked where neither of
/// the latter two is there: a card alone proves nothing.
RunCheck check_weights(const LedgerSummary& ledger, const nlohmann::ordered_json& card,
                       const std::filesystem::path& run);

/// "public facts": what the card says of the data is what the ledger notes of the release, and what
/// `store` says, where it is at hand (empty: it is not).
RunCheck check_facts(const LedgerSummary& ledger, const nlohmann::ordered_json& card,
                     const std::filesystem::path& card_file, const std::filesystem::path& store);

/// "release files": the release/ of `run` holds what a release does and nothing else, and its files
/// are those that the ledger notes. What `stages` leave there is for "stage results".
RunCheck check_files(const LedgerSummary& ledger, const std::filesystem::path& run,
                     const std::vector<StageFile>& stages);

/// "" if `page` (report.html) says what `card` says and nothing else, and its settings are those of
/// `plan`. Else what is wrong with it, as where it is not there.
std::string report_defect(const nlohmann::ordered_json& card, const std::filesystem::path& page,
                          const MechanismPlan& plan);

}  // namespace sfumato
