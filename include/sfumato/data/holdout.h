#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "sfumato/core/choices.h"

namespace sfumato {

class RecordStore;

// Images that `prepare` holds out from training (data.holdout), for evaluations and audits. They
// are private as all others. Training never reads them, so that its claim says nothing of them, and
// nothing protects a number that is computed from them: it stays with their holder, unless it is
// released with noise that the mechanism of a run on the other images has planned
// (evaluate/noisy_evaluation.h).

/// Whether a unit of privacy is held out: SHA-256 of its public name (a user's id, or where there
/// are no users the name of an image in the source) falls below `share`. It hangs on that name
/// alone, without a key: whatever is added to the set, taken out or replaced, all other units stay
/// on their side, and a unit whose content changes stays on its own.
bool is_held_out(std::string_view unit, double share);
/// The number in [0, 1) that is compared with the share.
double holdout_place(std::string_view unit);

/// Where the held-out images of a store lie, whether there are any or not: STORE-holdout.
std::filesystem::path holdout_store(const std::filesystem::path& store);

/// holdout_store() of a record store, if a record store is there; whether the two were prepared
/// together is for check_holdout_of().
std::optional<std::filesystem::path> held_out_beside(const std::filesystem::path& store);

/// Whether this store is one of held-out images.
bool is_holdout(const RecordStore& store);

/// PrivacyError where units of this store were held out by their place in the source and data sets
/// are neighbours that differ by a record added or removed, which moves the others.
void check_holdout_adjacency(const RecordStore& store, Adjacency adjacency);

/// DataError unless `holdout` was prepared with `store`, and so has no unit in common with it.
void check_holdout_of(const RecordStore& store, const RecordStore& holdout);

}  // namespace sfumato
