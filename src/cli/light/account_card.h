#pragma once
#include <nlohmann/json.hpp>
#include <string>

namespace sfumato::cli {

/// `account --card FILE`: recomputes epsilon from the stages of a privacy card alone and prints it
/// beside the claim. PrivacyError if the claim is smaller than what its own accountant proves.
void account_card(const std::string& file, bool json);

/// "" if the claim of a private card follows from the stages that it lists; else what is wrong.
std::string card_defect(const std::string& file, const nlohmann::ordered_json& card);

}  // namespace sfumato::cli
