#pragma once
#include <filesystem>

namespace sfumato {

/// The normal form of a path, without a '/' at its end: a folder has one name, and a last part.
std::filesystem::path without_slash(const std::filesystem::path& path);

/// Absolute, symbolic links followed as far as there is something, without a '/' at its end. Where
/// the system does not tell, links are not followed.
std::filesystem::path resolved(const std::filesystem::path& path);

/// Whether `path` is `folder` or lies below it, part by part as both are written; of resolved()
/// paths, as they are.
bool lies_within(const std::filesystem::path& path, const std::filesystem::path& folder);

}  // namespace sfumato
