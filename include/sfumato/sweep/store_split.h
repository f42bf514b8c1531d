#pragma once
#include <cstdint>
#include <filesystem>

#include "sfumato/core/choices.h"

namespace sfumato {

/// A record store in two parts without a record in common.
struct StoreParts {
  std::filesystem::path tuning, final_run;
};

/// Splits by a public hash of each record's place, of which a share falls to tuning:
/// STORE-tuning-0.1 and STORE-final-0.1, made once and recognised afterwards. A record that is
/// blanked out or replaced keeps its place, so that it is in one part, whatever it is: what looked
/// at one part and what looked at the other compose in parallel, and the epsilon of both is the
/// larger of theirs. A record that is added or removed would move the places of others, and the
/// records of one user would be in both: PrivacyError for that adjacency and for such stores.
/// DataError where the parts that are there are of another store or share.
StoreParts split_store(const std::filesystem::path& store, double tuning_share,
                       Adjacency adjacency);

/// Whether the record at this place is for tuning.
bool is_for_tuning(std::int64_t place, double tuning_share);

}  // namespace sfumato
