#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>

#include "sfumato/generate/generator.h"
#include "sfumato/generate/placement.h"

namespace sfumato {

/// What networks a benchmark runs, as the config.json of a diffusion network or of a GAN's
/// generator, or as those of both networks of a GAN: {"generator": ..., "discriminator": ...}.
///
/// `path` is a config.json or a folder that holds one, also as unet/config.json, or
/// generator/config.json and, where it is there, discriminator/config.json. `generator`, unless
/// empty, is the same for the generator that belongs to the discriminator of `path`. DataError for
/// anything else and for networks that do not belong together.
nlohmann::json describe_networks(const std::filesystem::path& path,
                                 const std::filesystem::path& generator = {});

/// Whether images are drawn in steps: from a diffusion network, not from a GAN's generator.
bool draws_in_steps(const nlohmann::json& networks);

/// A generator of such networks with random weights. `draws`: network inputs of each example in a
/// private step, for a GAN its image and the fakes beside it; 0: for drawing images alone.
/// UsageError for a description that lacks what this takes.
std::unique_ptr<Generator> random_generator(const nlohmann::json& networks,
                                            const Placement& placement, uint64_t seed,
                                            int64_t draws);

}  // namespace sfumato
