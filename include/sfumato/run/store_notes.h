#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "sfumato/privacy/adjacency.h"

namespace sfumato {

/// The two parts of a record store, made by a sweep that tunes on the one alone (store_split.h).
struct PartsUse {
  double tuning_share = 0;
  std::filesystem::path tuning,
      final_run;  ///< where they lay; they are looked for beside the store
};

/// What a sweep notes of itself before its first run, in STORE/uses/selections/<sweep>.json: the
/// whole of it counts from then on, whatever becomes of its runs, and those of its runs that
/// the store knows do not count besides. A private selection does so in the store that its runs
/// train on; tuning on a part of a store in the whole of it, which then knows both parts.
struct SelectionUse {
  std::string sweep;              ///< SHA-256 of the sweep's plan
  std::string place;              ///< folder that its runs lie in
  std::int64_t runs = 0;          ///< how many there are: of a selection as private as the store
  std::string draw;               ///< SHA-256 of what was drawn; "" where nothing was
  double epsilon = 0, delta = 0;  ///< of the whole
  Adjacency adjacency = Adjacency::kZeroOut;
  std::string unit;
  std::int64_t records_per_unit = 1;
  std::optional<PartsUse> parts;  ///< of tuning on a part; else it is a private selection
};
/// Once; DataError where the store takes no notes, or holds another of the same sweep. PrivacyError
/// as check_parts.
void note_selection(const std::filesystem::path& store, const SelectionUse& use);
/// In the order of their names. DataError for one that is damaged, or of an older version, which
/// did not say for whom its epsilon is.
std::vector<SelectionUse> read_selections(const std::filesystem::path& store);

/// PrivacyError if a sweep notes that it trains on parts of `store` by another share than
/// `tuning_share`, and anything was trained on them or may have been: parts of two splits overlap,
/// so that what was released of them would add up, and not be the larger.
void check_parts(const std::filesystem::path& store, double tuning_share);

/// How a part of a store says what it is, in the "preparation" of its manifest.
nlohmann::json part_origin(const std::filesystem::path& store, double tuning_share, bool is_tuning);
/// Where a part lies that was noted at `place`: beside the store, or there. Empty where no part of
/// this store as it is now, of that share, is found. DataError for a store that is damaged.
std::optional<std::filesystem::path> find_part(const std::filesystem::path& store,
                                               const PartsUse& parts, bool is_tuning);

}  // namespace sfumato
