#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace sfumato {

/// release/report.html: what `card` says, and the settings that may be seen.
std::string release_page(const nlohmann::ordered_json& card, const std::string& settings_yaml);

}  // namespace sfumato
