#include "sfumato/train/embedded_images.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/generate/seeded_streams.h"
#include "sfumato/grad/optimizer.h"
#include "sfumato/io/json_file.h"
#include "sfumato/nn/named_tensors.h"

namespace sfumato {
namespace {

/// Images that pass through the generator together when they are drawn.
constexpr std::int64_t kDrawnTogether = 250;
/// Side of the maps with which the usual generator begins, at most.
constexpr std::int64_t kFirstSide = 7;

at::Tensor latents_of(const char* purpose, std::uint64_t seed, std::int64_t step,
                      std::int64_t count, std::int64_t size) {
  const at::Tensor latents = at::empty({count, size});
  SeededStreams(purpose, seed, static_cast<std::uint64_t>(step))
      .normals(latents.mutable_data_ptr<float>(), latents.numel(), 0, 0);
  return latents;
}

/// Classes in a step, and images of each: all of them, or as many as have two images.
struct StepClasses {
  StepClasses(std::int64_t all, std::int64_t batch)
      : classes(std::clamp(batch / 2, std::int64_t{1}, all)),
        each(std::max<std::int64_t>(batch / classes, 2)) {}
  std::int64_t classes, each;
};

/// int64 [classes each]: those of a step one after the other, so that all have their turn.
at::Tensor classes_of_step(const StepClasses& sizes, std::int64_t all, std::int64_t step) {
  const at::Tensor labels = at::empty({sizes.classes * sizes.each}, at::kLong);
  std::int64_t* out = labels.mutable_data_ptr<std::int64_t>();
  for (std::int64_t c = 0; c < sizes.classes; ++c)
    std::fill_n(out + c * sizes.each, sizes.each, (step * sizes.classes + c) % all);
  return labels;
}

/// One step of autograd and of the update; its loss.
double fit_step(const at::Tensor& loss, const std::vector<Parameter*>& parameters,
                double learning_rate, Optimizer& optimizer) {
  std::optional<PublicGradient> gradient = public_gradient_by_autograd(loss, parameters);
  if (!gradient)
    throw DataError(
        "the generator that is fitted to the mean embedding broke down: its gradient is not "
        "finite; lower warmup.embedding.generator_learning_rate");
  optimizer.step(std::move(*gradient), learning_rate);
  return loss.item<double>();
}

void require_same_classes(const GeneratorNetwork& generator, const MeanEmbedding& embedding) {
  const std::int64_t classes = std::max<std::int64_t>(generator.num_classes(), 1);
  if (classes == embedding.means.size(0)) return;
  throw DataError(
      fmt::format("the generator of warmup.embedding has {} classes, the released mean embedding "
                  "{}; set num_class_embeds in the file of warmup.embedding.generator_config",
                  classes, embedding.means.size(0)));
}

}  // namespace

at::Tensor embedding_distance(const at::Tensor& released, const at::Tensor& features) {
  const auto each = static_cast<double>(features.size(1));
  const at::Tensor mean = features.mean(1);
  const at::Tensor pairs = (each * mean.square().sum(1) - 1) / (each - 1);
  return (released.square().sum(1) - 2 * (released * mean).sum(1) + pairs).mean();
}

double fit_to_embedding(GeneratorNetwork& generator, const MeanEmbedding& embedding,
                        const EmbeddingFit& fit, const std::function<void()>& check_stop) {
  require_same_classes(generator, embedding);
  move_module(generator, fit.device);
  const std::vector<Parameter*> parameters = generator.parameters();
  Optimizer optimizer(parameters, std::vector<double>(parameters.size(), 1.0), OptimizerOptions{});
  const RandomFeatures features(embedding.features, generator.image_shape(), fit.device);
  const at::Tensor released = embedding.means.to(fit.device);
  const StepClasses sizes(released.size(0), fit.batch);
  const std::int64_t last = std::max<std::int64_t>(fit.steps / 10, 1);
  double distance = 0;
  for (std::int64_t step = 0; step < fit.steps; ++step) {
    check_stop();
    const at::Tensor labels = classes_of_step(sizes, released.size(0), step).to(fit.device);
    const at::Tensor latents = latents_of("sfumato generator of an embedding 1", fit.seed, step,
                                          labels.size(0), generator.latent_size())
                                   .to(fit.device);
    const at::Tensor values =
        features.of_images(generator.forward(latents, labels, /*training=*/true))
            .view({sizes.classes, sizes.each, features.size()});
    const at::Tensor of_classes =
        released.index_select(0, labels.slice(0, 0, std::nullopt, sizes.each));
    const double rate = learning_rate_at(step, fit.learning_rate, 0, fit.steps, /*cosine=*/true, 0);
    const double loss =
        fit_step(embedding_distance(of_classes, values), parameters, rate, optimizer);
    if (step >= fit.steps - last) distance += loss / static_cast<double>(last);
  }
  return distance;
}

at::Tensor draw_in_turn(GeneratorNetwork& generator, std::int64_t count, std::uint64_t seed,
                        c10::Device device) {
  const at::NoGradGuard no_grad;
  const std::int64_t classes = std::max<std::int64_t>(generator.num_classes(), 1);
  std::vector<at::Tensor> images;
  for (std::int64_t first = 0; first < count; first += kDrawnTogether) {
    const std::int64_t size = std::min(kDrawnTogether, count - first);
    const at::Tensor latents =
        latents_of("sfumato images of an embedding 1", seed, first, size, generator.latent_size());
    const at::Tensor labels = at::empty({size}, at::kLong);
    for (std::int64_t i = 0; i < size; ++i)
      labels.mutable_data_ptr<std::int64_t>()[i] = (first + i) % classes;
    images.push_back(
        generator.forward(latents.to(device), labels.to(device), /*training=*/false).to(at::kCPU));
  }
  return at::cat(images).contiguous();
}

nlohmann::json usual_embedding_generator(const ImageShape& shape, std::int64_t classes) {
  std::vector<std::int64_t> widths = {64};
  for (std::int64_t side = (shape.height + 1) / 2; side > kFirstSide; side = (side + 1) / 2)
    widths.insert(widths.begin(), 2 * widths.front());
  nlohmann::json config = {{"_class_name", "DCGANGenerator"}, {"sample_size", shape.height},
                           {"out_channels", shape.channels},  {"latent_size", 32},
                           {"block_out_channels", widths},    {"initialization", "normal"}};
  if (classes > 0) config["num_class_embeds"] = classes;
  return config;
}

at::Tensor images_of_embedding(const Config& config, const MeanEmbedding& embedding,
                               const ImageShape& shape, c10::Device device,
                               const std::function<void()>& check_stop) {
  const EmbeddingWarmupSettings& settings = config.embedding_warmup;
  const std::string& file = settings.generator_config();
  const std::unique_ptr<GeneratorNetwork> generator =
      file.empty()
          ? make_generator_network(usual_embedding_generator(shape, config.data.num_classes()))
          : make_generator_network(read_json(file), file);
  const ImageShape drawn = generator->image_shape();
  if (drawn.channels != shape.channels || drawn.height != shape.height ||
      drawn.width != shape.width)
    throw DataError(fmt::format(
        "the generator of warmup.embedding draws images of {} channels and {}x{} pixels, and the "
        "record store holds {} and {}x{}; set another warmup.embedding.generator_config",
        drawn.channels, drawn.height, drawn.width, shape.channels, shape.height, shape.width));
  const auto seed = static_cast<std::uint64_t>(config.run.seed());
  generator->initialise(seed);
  const EmbeddingFit fit{settings.generator_steps(), settings.generator_batch(),
                         settings.generator_learning_rate(), seed, device};
  log_info(
      fmt::format("warm-up: a generator is fitted to the mean embedding in {} steps", fit.steps));
  const double distance = fit_to_embedding(*generator, embedding, fit, check_stop);
  const double noise = static_cast<double>(embedding.means.size(1)) * embedding.noise_stddev *
                       embedding.noise_stddev;
  log_info(
      fmt::format("warm-up: its images' embedding is at a squared distance of {:.4f} from the "
                  "released one, of which the noise alone is {:.4f}",
                  distance, noise));
  return draw_in_turn(*generator, settings.images(), seed, device);
}

}  // namespace sfumato
