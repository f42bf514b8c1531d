#pragma once
#include <string>

namespace sfumato::cli {

/// `account --card FILE`: recomputes epsilon from the stages of a privacy card alone and prints it
/// beside the claim. PrivacyError if the claim is smaller than what its own accountant proves.
void account_card(const std::string& file, bool json);

}  // namespace sfumato::cli
