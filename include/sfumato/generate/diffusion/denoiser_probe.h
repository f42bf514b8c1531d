#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "sfumato/core/choices.h"
#include "sfumato/nn/module.h"

namespace sfumato {

class Tape;
class UNet2D;

/// A network and inputs for it from files, whatever they mean to training: for comparisons of
/// outputs, losses and gradients with other programs. A loss is the mean squared error.
class DenoiserProbe {
 public:
  /// `model`: a folder that load_unet2d takes. `inputs`: safetensors with sample [B, C, H, W] or
  /// [B, K, C, H, W] (K draws an example), timestep and target likewise, class_labels [B] where the
  /// network has classes. DataError, which names file and tensor, for others.
  /// `precision`: on the CPU; errors as of open_placement.
  DenoiserProbe(const std::filesystem::path& model, const std::filesystem::path& inputs,
                Precision precision = Precision::kFp32);
  ~DenoiserProbe();

  int64_t examples() const { return inputs_.examples; }
  int64_t draws() const { return inputs_.draws; }
  bool has_draws() const { return inputs_.has_draws; }
  std::vector<Parameter*> parameters();

  struct Answer {
    at::Tensor output;  ///< [count K, ...]
    at::Tensor losses;  ///< [count], the mean over draws
  };
  /// Of the examples first ... first + count - 1.
  Answer ask(int64_t first, int64_t count, Tape* tape);

  /// Examples with the draws laid out behind one another.
  struct Inputs {
    int64_t examples = 0, draws = 1;
    bool has_draws = false;  ///< [B, K, ...] rather than [B, ...]
    at::Tensor sample;       ///< [B K, C, H, W]
    at::Tensor timestep;     ///< [B K]
    at::Tensor labels;       ///< [B K] or [B K, E]; undefined for unconditional networks
    at::Tensor target;       ///< as the network's output
  };

 private:
  std::unique_ptr<UNet2D> network_;
  Inputs inputs_;
};

}  // namespace sfumato
