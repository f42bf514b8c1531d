#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>

namespace sfumato {

class Tape;
class UNet2D;

/// A denoising network as losses and solvers see it: x float32 [N, C, H, W], t [N] (int64
/// timesteps, or float32 where a solver's levels are real), labels int64 [N] (undefined for
/// networks without classes) -> [N, C, H, W].
using DenoiserFn =
    std::function<at::Tensor(const at::Tensor& x, const at::Tensor& t, const at::Tensor& labels)>;

/// `network` and `tape` are borrowed. `tape` is null for inference and ordinary training.
DenoiserFn unet_denoiser(UNet2D& network, Tape* tape = nullptr);

/// The same in parts of at most `rows` images, of which each thread computes its own: what layers
/// hand on stays in a core's caches, and threads wait for each other once a call. On the CPU
/// without autograd; else, and where a part would have less than half of `rows`, `model` itself is
/// called.
DenoiserFn in_parts(DenoiserFn model, int64_t rows);

/// Classifier-free guidance (Ho & Salimans 2022): (1 + w) f(x, t, y) - w f(x, t, null) in one call
/// of 2N. `guidance` w = 0 returns `model` itself. Results need labels to be given.
DenoiserFn guided(DenoiserFn model, double guidance, int64_t null_label);

/// Where guidance is of use: sigma, noise over signal, in [low, high] (Kynkäänniemi et al. 2024,
/// arXiv 2404.07724).
struct GuidanceInterval {
  double low = 0;
  std::optional<double> high = {};  ///< nothing: no bound

  bool is_everything() const { return low == 0 && !high; }
  /// Both ends belong to it, but for rounding.
  bool holds(double sigma) const;
};

}  // namespace sfumato
