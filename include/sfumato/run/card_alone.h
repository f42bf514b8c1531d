#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "sfumato/run/run_directory.h"

namespace sfumato {

/// Every way in which a private card by itself says more than follows from its own stages, epsilon,
/// delta, unit and adjacency, one clause each: sentences, counts and bounds that others would read
/// in a corpus's README. Whether epsilon and its curve cover the stages is for account --card.
/// `stages`: those that a card may name.
std::vector<std::string> unfounded_fields(const nlohmann::ordered_json& card,
                                          const std::vector<StageFile>& stages = stage_files());

/// "" if a card that is not private claims nothing in any field; else what it does.
std::string claim_left(const nlohmann::ordered_json& card);

/// The card as one that claims nothing: void unless it is NOT PRIVATE, its sentences those of this
/// program, of the rest only hashes, known reasons, what training started from and public facts
/// that are such.
nlohmann::ordered_json without_claim(const nlohmann::ordered_json& card);

/// What is wrong with the public facts on a card, one clause each: there are image_size, channels
/// and num_classes, class_names, class_names_from and classes_that_may_be_empty, and no other.
std::vector<std::string> facts_defects(const nlohmann::ordered_json& card);

}  // namespace sfumato
