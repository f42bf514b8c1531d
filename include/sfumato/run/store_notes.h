#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "sfumato/privacy/adjacency.h"

namespace sfumato {

class RecordStore;

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

/// PrivacyError if `store` has parts by another share than `tuning_share`, which a sweep has noted
/// or which lie beside it, and anything was trained on them or may have been: parts of two splits
/// overlap, so that what was released of them would add up, and not be the larger.
void check_parts(const std::filesystem::path& store, double tuning_share);

/// Whether a folder beside a store of this name has the name of a part of it, of whichever share.
bool is_called_part(const std::string& folder, const std::string& store);
/// How a part of a store says what it is, in the "preparation" of its manifest: with what the
/// store says there of its source and of images that were held out, the same for its parts.
nlohmann::json part_origin(const std::filesystem::path& store, double tuning_share, bool is_tuning);
/// Whether a "preparation" is that of the part of this origin, whatever else it says.
bool is_part(const nlohmann::json& preparation, const nlohmann::json& origin);
/// Where a split puts a part of `store`: beside it, as STORE-tuning-0.1 or STORE-final-0.1.
std::filesystem::path part_place(const std::filesystem::path& store, double tuning_share,
                                 bool is_tuning);
/// PrivacyError for a part of a store where data sets are neighbours that differ by a record added
/// or removed, which moves the others from one part to the other.
void check_part_adjacency(const RecordStore& store, Adjacency adjacency);
/// Where a part lies that was noted at `place`: beside the store, or there. Empty where no part of
/// this store as it is now, of that share, is found. DataError for a store that is damaged.
std::optional<std::filesystem::path> find_part(const std::filesystem::path& store,
                                               const PartsUse& parts, bool is_tuning);
/// The splits of a store whose parts lie at their places, or one of them, by share: a sweep that is
/// planned makes parts, and only one that runs notes them. None for what is no store. DataError for
/// a part whose manifest cannot be read.
std::vector<PartsUse> splits_beside(const std::filesystem::path& store);
/// `store` itself first, then all whose records it may share or that were split from the same: its
/// parts, the store that it is a part of, and that one's other parts, as far as they are found.
/// DataError as splits_beside and read_selections.
std::vector<std::filesystem::path> related_stores(const std::filesystem::path& store);

}  // namespace sfumato
