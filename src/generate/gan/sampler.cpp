#include "generate/gan/sampler.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

#include "sfumato/config/config.h"
#include "sfumato/config/public_settings.h"
#include "sfumato/core/error.h"
#include "sfumato/generate/seeded_streams.h"

namespace sfumato {
namespace {

class GanSampler : public ImageSampler {
 public:
  GanSampler(GeneratorNetwork& generator, c10::Device device, std::uint64_t seed)
      : generator_(generator), device_(device), seed_(seed) {}

  at::Tensor draw(std::span<const ImageId> images) const override {
    const c10::InferenceMode no_autograd;
    const std::int64_t count = std::ssize(images), size = generator_.latent_size();
    const ImageShape shape = generator_.image_shape();
    if (count == 0) return at::empty({0, shape.height, shape.width, shape.channels}, at::kByte);
    const at::Tensor latents = at::empty({count, size});
    const at::Tensor labels = at::empty({count}, at::kLong);
    float* latent = latents.mutable_data_ptr<float>();
    std::int64_t* label = labels.mutable_data_ptr<std::int64_t>();
    at::parallel_for(0, count, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const ImageId& image = images[static_cast<std::size_t>(i)];
        label[i] = image.label;
        SeededStreams("latents of a generator", seed_, static_cast<std::uint64_t>(image.label))
            .normals(latent + i * size, size, 0, static_cast<std::uint64_t>(image.index));
      }
    });
    const at::Tensor drawn = generator_.forward(latents.to(device_), labels.to(device_),
                                                /*training=*/false);
    if (!at::isfinite(drawn).all().item<bool>())
      throw DataError(
          "the generator produced values that are not finite; its weights are unusable (training "
          "diverged)");
    return drawn.add(1)
        .mul(127.5)
        .clamp(0, 255)
        .round()
        .to(at::kByte)
        .permute({0, 2, 3, 1})
        .contiguous()
        .cpu();
  }

  nlohmann::ordered_json settings() const override {
    return {{"family", "gan"}, {"latent_size", generator_.latent_size()}};
  }

 private:
  GeneratorNetwork& generator_;
  c10::Device device_;
  std::uint64_t seed_;
};

}  // namespace

void refuse_diffusion_settings(const Config& config) {
  for (const SettingBase* setting : config.sample.settings()) {
    if (std::ranges::find(kSampleOfEveryFamily, setting->name()) != std::end(kSampleOfEveryFamily))
      continue;
    // A run's configuration names every setting: what is the default there was asked for by nobody.
    if (setting->value_yaml() == setting->default_yaml()) continue;
    throw UsageError(fmt::format(
        "{} is {} ({}): it says how a diffusion network is drawn from, and this generator draws an "
        "image in one pass; set it to its default, {}",
        setting->key(), setting->value_yaml(), setting->provenance(), setting->default_yaml()));
  }
}

std::unique_ptr<ImageSampler> make_gan_sampler(GeneratorNetwork& generator, c10::Device device,
                                               std::uint64_t seed) {
  return std::make_unique<GanSampler>(generator, device, seed);
}

}  // namespace sfumato
