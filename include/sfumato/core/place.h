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

/// The file of the program that runs, links followed; empty where the system does not tell.
std::filesystem::path this_program();

/// Where a file or folder of what the program comes with lies ("models/public/lenet"): in the
/// program's folder or one of the four above it, as in a build, a bundle and an installed package;
/// else in the working folder. Empty where it is in none.
std::filesystem::path shipped(const std::filesystem::path& name);

}  // namespace sfumato
