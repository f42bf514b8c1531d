#include "sfumato/train/gradient_step.h"

#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <numeric>

#include "sfumato/grad/isolation.h"
#include "sfumato/grad/memory_meter.h"

namespace sfumato {
namespace {

/// Side of synthetic images where the network's config.json names no sample_size: a few positions
/// at the lowest level.
int64_t side(const UNet2DConfig& config) { return 4 * config.size_multiple(); }

}  // namespace

GradientStep::GradientStep(UNet2D& network, const NoiseSchedule& schedule,
                           const DiffusionOptions& diffusion, const ClipOptions& clip,
                           AlgorithmPolicy policy)
    : network_(network),
      schedule_(schedule),
      diffusion_(diffusion),
      engine_(network.parameters(), clip, policy) {}

ImageShape GradientStep::image_shape() const {
  const UNet2DConfig& c = network_.config();
  const auto [height, width] = c.sample_size.value_or(std::array{side(c), side(c)});
  return {c.in_channels, height, width};
}

at::Tensor GradientStep::loss(const PhysicalBatch& batch, Tape* tape) {
  return diffusion_loss(network_, schedule_, diffusion_.prediction, batch.images, batch.drawn,
                        tape);
}

BatchStatistics GradientStep::accumulate_private(const PhysicalBatch& batch) {
  return engine_.accumulate(batch.examples, diffusion_.draws, batch.mask,
                            [&](Tape& tape) { return loss(batch, &tape); });
}

BatchStatistics GradientStep::accumulate_plain(const PhysicalBatch& batch) {
  BatchStatistics statistics;
  const at::Tensor losses = loss(batch, nullptr);
  statistics.loss = losses.detach();
  statistics.norm = at::zeros({batch.examples}, at::kDouble);
  statistics.counted = static_cast<int64_t>(batch.mask.sum().item<float>());
  losses.backward(batch.mask);
  return statistics;
}

std::vector<at::Tensor> GradientStep::take_plain() {
  std::vector<at::Tensor> sums;
  for (Parameter* parameter : engine_.trainable()) {
    at::Tensor& grad = parameter->value.mutable_grad();
    sums.push_back(grad.defined() ? grad : at::zeros_like(parameter->value.detach()));
    grad = at::Tensor{};
  }
  return sums;
}

void GradientStep::verify() {
  verify_isolation(engine_, diffusion_.draws, [&](Tape& tape, int variant) {
    const uint64_t keys[] = {0, 1 + static_cast<uint64_t>(variant)};
    return loss(synthetic_batch(image_shape(), keys, diffusion_), &tape);
  });
}

int64_t GradientStep::peak_bytes(int64_t examples, bool is_private) {
  const MemoryMeter meter;
  std::vector<uint64_t> keys(static_cast<size_t>(examples));
  std::iota(keys.begin(), keys.end(), uint64_t{0});
  const PhysicalBatch batch = synthetic_batch(image_shape(), keys, diffusion_);
  if (is_private) {
    accumulate_private(batch);
    (void)take_private();
  } else {
    accumulate_plain(batch);
    (void)take_plain();
  }
  return meter.peak_bytes();
}

}  // namespace sfumato
