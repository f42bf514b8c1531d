#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace sfumato {

/// A run as it is shown beside others.
struct ShownRun {
  std::filesystem::path folder;
  std::string state;  ///< "finished", "step 120 of 500", "not begun"
  std::int64_t charged_steps = 0;
  /// "private", "NOT PRIVATE", "VOID"; "DAMAGED" where something does not follow from the ledger.
  std::string privacy;
  std::optional<double> epsilon;          ///< of what is charged, where that is a claim
  std::optional<double> epsilon_planned;  ///< once all steps are taken
  double delta = 0;
  std::filesystem::path picture;  ///< newest preview; empty: there is none that may be shown
  std::int64_t picture_step = 0;
  /// Of the last line of private metrics; only where they were asked for.
  std::map<std::string, double> metrics;
};

/// Runs side by side.
struct SideBySide {
  std::vector<ShownRun> runs;
  /// Settings that are not the same in all, by key: YAML values in the order of the runs.
  std::vector<std::pair<std::string, std::vector<std::string>>> settings;
  bool with_private = false;
};

/// Reads runs, at least one. Losses and other metrics, and pictures of runs without privacy, only
/// where `with_private`. UsageError for what is no run directory; DataError for a configuration or
/// ledger that cannot be read.
SideBySide side_by_side(const std::vector<std::filesystem::path>& runs, bool with_private);

/// For a terminal: a row for each fact, a column for each run.
std::string text_of(const SideBySide& runs);
nlohmann::ordered_json to_json(const SideBySide& runs);
/// One self-contained page, pictures inside.
std::string page_of(const SideBySide& runs);

}  // namespace sfumato
