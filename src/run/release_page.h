#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace sfumato {

/// release/report.html: what `card` says, its plots, and the settings that may be seen.
std::string release_page(const nlohmann::ordered_json& card, const std::string& settings_yaml);
/// The same with these plots in place of the card's, or none.
std::string release_page(const nlohmann::ordered_json& card, const std::string& settings_yaml,
                         const std::string& plots);

}  // namespace sfumato
