#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>

#include "sfumato/mechanism/mean_embedding.h"
#include "sfumato/models/gan_networks.h"

namespace sfumato {

/// How the auxiliary generator of a mean embedding is trained.
struct EmbeddingFit {
  std::int64_t steps = 2000;
  std::int64_t batch = 100;  ///< images in a step, at least 2
  double learning_rate = 0.005;
  std::uint64_t seed = 0;
  c10::Device device = c10::kCPU;
};

/// The mean over classes of the squared distance of a released mean [k, F] to that of the
/// distribution from which features [k, n, F] of norm 1, n >= 2, were drawn: |r|^2 - 2 r.m + q,
/// with their mean m and the mean q of z.z' over pairs of different images, (n |m|^2 - 1) / (n -
/// 1). Without bias: the distance to m itself is larger by the spread of n images over n, so that
/// its minimiser draws images too much alike.
at::Tensor embedding_distance(const at::Tensor& released, const at::Tensor& features);

/// Fits a generator with weights of its own (GeneratorNetwork::initialise) to a released embedding:
/// Adam on embedding_distance(), at a rate that falls to 0 as a cosine. Post-processing: nothing
/// here is private. Everything follows from the seed. Leaves it on `fit.device`; returns the mean
/// of the distance over the last tenth of the steps. `check_stop` is called before each step and
/// may throw. DataError where the two are not of the same classes, or where training breaks.
double fit_to_embedding(GeneratorNetwork& generator, const MeanEmbedding& embedding,
                        const EmbeddingFit& fit, const std::function<void()>& check_stop);

/// Images of a generator, float32 [count, C, H, W] in [-1, 1] on the CPU; image i is of class
/// i % classes (1 where it has none).
at::Tensor draw_in_turn(GeneratorNetwork& generator, std::int64_t count, std::uint64_t seed,
                        c10::Device device);

/// A DCGAN for small images of a side: what fits where no config.json is named.
nlohmann::json usual_embedding_generator(const ImageShape& shape, std::int64_t classes);

/// All of these for a configuration: images whose mean embedding is the released one. DataError for
/// a generator of other images.
at::Tensor images_of_embedding(const Config& config, const MeanEmbedding& embedding,
                               const ImageShape& shape, c10::Device device,
                               const std::function<void()>& check_stop);

}  // namespace sfumato
