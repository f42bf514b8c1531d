#pragma once
#include <string>

#include "image_source.h"
#include "sfumato/core/choices.h"

namespace sfumato {

// Members of the preparation in manifests of two stores that were made together. Both hold an
// object whose member "pair" is the same secret text.
inline constexpr const char* kHoldout = "holdout";        ///< in the store for training
inline constexpr const char* kHeldOutOf = "held_out_of";  ///< in STORE-holdout

/// By what units are held out: "user", "name" of an image, or "place" of an image that has no other
/// name.
std::string holdout_rule(FoundFormat format, bool has_users);
/// PrivacyError as check_holdout_adjacency().
void check_holdout_rule(const std::string& rule, Adjacency adjacency);

}  // namespace sfumato
