#pragma once
#include <cstdint>
#include <filesystem>

#include "sfumato/core/choices.h"

namespace sfumato {

struct SweepPlan;

/// A record store in two parts without a record in common.
struct StoreParts {
  std::filesystem::path tuning, final_run;
};

/// Splits by a public hash of each record's place, of which a share falls to tuning:
/// STORE-tuning-0.1 and STORE-final-0.1, made once and recognised afterwards. A record that is
/// blanked out or replaced keeps its place, so that it is in one part, whatever it is: what looked
/// at one part and what looked at the other compose in parallel, and the epsilon of both is the
/// larger of theirs. A record that is added or removed would move the places of others, as does one
/// that becomes the copy of another where `prepare` leaves copies out, and the records of one user
/// would be in both: PrivacyError for that adjacency, for stores that were prepared with
/// data.deduplicate or data.skip_unreadable, for those of users, where parts of another share were
/// used (check_parts), and for a part that was used and is gone.
/// DataError where the parts that are there are of another store or share.
StoreParts split_store(const std::filesystem::path& store, double tuning_share,
                       Adjacency adjacency);

/// Tells the whole store what the runs of a disjoint split cost on its part, and where both parts
/// lie, before the first of them: what is ever trained on the whole, or on either part, is then
/// added up there. PrivacyError for runs without noise, and as note_selection.
void note_tuning(const SweepPlan& plan);

/// Whether the record at this place is for tuning.
bool is_for_tuning(std::int64_t place, double tuning_share);

}  // namespace sfumato
