#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>

#include "sfumato/generate/generator.h"
#include "sfumato/generate/placement.h"

namespace sfumato {

/// What networks a benchmark runs, as the config.json of one or, of a family with several, as those
/// of each by the names of their folders: {"generator": ..., "discriminator": ...}.
///
/// `path` is a config.json or a folder, as find_networks() takes them. `generator`, unless empty,
/// is the same for the network that draws, where `path` is of the other one, which it learns from.
/// DataError for anything else and for networks that do not belong together.
nlohmann::json describe_networks(const std::filesystem::path& path,
                                 const std::filesystem::path& generator = {});

/// Whether images are drawn in steps (Family::draws_in_steps).
bool draws_in_steps(const nlohmann::json& networks);

/// A generator of such networks with random weights. `draws`: network inputs of each example in a
/// private step, for a GAN its image and the fakes beside it; 0: for drawing images alone.
/// UsageError for a description that lacks what this takes, DataError for one of no family.
std::unique_ptr<Generator> random_generator(const nlohmann::json& networks,
                                            const Placement& placement, uint64_t seed,
                                            int64_t draws);

}  // namespace sfumato
