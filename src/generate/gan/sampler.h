#pragma once
#include <memory>

#include "sfumato/generate/image_sampler.h"
#include "sfumato/models/gan_networks.h"

namespace sfumato {

struct Config;

/// UsageError for a setting of how diffusion networks are drawn from that is not its default: a
/// generator draws in one pass.
void refuse_diffusion_settings(const Config& config);

/// Images of `generator`, which is borrowed, in one pass. The latent vector of the index-th image
/// of a class is the stream ("latents of a generator", seed, label, 0, index) of standard normals,
/// label 0 where there are no classes: sample.py of a release draws the same.
std::unique_ptr<ImageSampler> make_gan_sampler(GeneratorNetwork& generator, c10::Device device,
                                               std::uint64_t seed);

}  // namespace sfumato
