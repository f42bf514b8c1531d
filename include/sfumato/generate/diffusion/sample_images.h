#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <span>

#include "sfumato/generate/diffusion/denoiser.h"
#include "sfumato/generate/diffusion/draws.h"
#include "sfumato/generate/diffusion/solver.h"
#include "sfumato/generate/image_id.h"

namespace sfumato {

/// Draws the named images: uint8 [N, H, W, C], round(clamp(x / 2 + 1/2, 0, 1) 255) as diffusers
/// does. All noise of an image comes from its own streams (seed, label, index), so an image does
/// not depend on the batch it is drawn in (beyond rounding, one grey level) nor on how many others
/// are asked for. `with_labels`: the network takes class labels. Runs without autograd. DataError
/// if the network returns a value that is not finite. Computes on `device`, where the network is;
/// the images come back on the CPU.
at::Tensor sample_images(const DenoiserFn& network, const Solver& solver, const ImageShape& shape,
                         std::span<const ImageId> images, bool with_labels, uint64_t seed,
                         c10::Device device = c10::kCPU);

/// The network as it is at a level, in its own measure: guided at some of them alone.
using DenoiserAt = std::function<const DenoiserFn&(const at::Scalar& level)>;
at::Tensor sample_images(const DenoiserAt& network_at, const Solver& solver,
                         const ImageShape& shape, std::span<const ImageId> images, bool with_labels,
                         uint64_t seed, c10::Device device = c10::kCPU);

}  // namespace sfumato
