#include "sfumato/generate/diffusion/sample_images.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/isfinite.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <vector>

#include "sfumato/core/error.h"
#include "sfumato/generate/seeded_streams.h"

namespace sfumato {
namespace {

/// Standard normal noise for one moment of the reverse process (0: the start), [N, C, H, W].
at::Tensor noise_of(std::span<const ImageId> images, const ImageShape& shape, uint64_t seed,
                    int64_t moment) {
  const auto count = static_cast<int64_t>(images.size());
  at::Tensor noise = at::empty({count, shape.channels, shape.height, shape.width}, at::kFloat);
  float* out = noise.mutable_data_ptr<float>();
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const ImageId& image = images[static_cast<std::size_t>(i)];
      const SeededStreams streams("sfumato sampled images 1", seed,
                                  static_cast<uint64_t>(image.label));
      streams.normals(out + i * shape.elements(), shape.elements(), static_cast<uint32_t>(moment),
                      static_cast<uint64_t>(image.index));
    }
  });
  return noise;
}

at::Tensor labels_of(std::span<const ImageId> images) {
  at::Tensor labels = at::empty({static_cast<int64_t>(images.size())}, at::kLong);
  for (std::size_t i = 0; i < images.size(); ++i)
    labels.mutable_data_ptr<int64_t>()[i] = images[i].label;
  return labels;
}

at::Tensor to_grey_levels(const at::Tensor& x) {
  return (x / 2 + 0.5)
      .clamp(0, 1)
      .mul(255)
      .round()
      .to(at::kByte)
      .permute({0, 2, 3, 1})
      .contiguous();
}

}  // namespace

at::Tensor sample_images(const DenoiserFn& network, const Solver& solver, const ImageShape& shape,
                         std::span<const ImageId> images, bool with_labels, uint64_t seed,
                         c10::Device device) {
  const DenoiserAt everywhere = [&](const at::Scalar&) -> const DenoiserFn& { return network; };
  return sample_images(everywhere, solver, shape, images, with_labels, seed, device);
}

at::Tensor sample_images(const DenoiserAt& network_at, const Solver& solver,
                         const ImageShape& shape, std::span<const ImageId> images, bool with_labels,
                         uint64_t seed, c10::Device device) {
  const c10::InferenceMode no_autograd;
  const auto count = static_cast<int64_t>(images.size());
  if (count == 0) return at::empty({0, shape.height, shape.width, shape.channels}, at::kByte);
  const at::Tensor labels = with_labels ? labels_of(images).to(device) : at::Tensor();
  const ModelFn model = [&](const at::Tensor& x, const at::Scalar& level) {
    const at::ScalarType type = level.isIntegral(/*includeBool=*/false) ? at::kLong : at::kFloat;
    return network_at(level)(x, at::full({count}, level, x.options().dtype(type)), labels);
  };
  const NoiseSource noise = [&](int64_t moment) {
    return noise_of(images, shape, seed, moment).to(device);
  };
  const at::Tensor x = solver.solve(model, noise);
  // A broken network must not become a corpus of black squares.
  if (!at::isfinite(x).all().item<bool>())
    throw DataError(
        "the network produced values that are not finite; its weights are unusable "
        "(training diverged, or sample.guidance is too large)");
  return to_grey_levels(x).cpu();
}

}  // namespace sfumato
