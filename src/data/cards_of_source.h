#pragma once
#include <filesystem>
#include <nlohmann/json_fwd.hpp>

namespace sfumato {

/// The privacy cards that speak of the images in `source`, for the manifest: those in its folder,
/// in the two above it and in the two below, through links. A list of {"file", "sha256", "text"};
/// "text" is null where the file cannot be read as JSON.
nlohmann::json cards_of_source(const std::filesystem::path& source);

}  // namespace sfumato
