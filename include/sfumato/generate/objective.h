#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "sfumato/models/image_shape.h"
#include "sfumato/nn/module.h"

namespace sfumato {

class Tape;

/// The images of a physical batch before anything is drawn for them: real examples first, then
/// padding.
struct ExampleBatch {
  ImageShape shape;
  /// [B] of an example's content alone, not of its place in a store or batch: draws depend on it.
  std::vector<std::uint64_t> keys;
  at::Tensor labels;  ///< int64 [B]
  at::Tensor mask;    ///< float32 [B]: 1 real, 0 padding
  /// [B] uint8 [height, width, channels] each, empty for padding; where the images are a store's.
  std::vector<std::span<const std::uint8_t>> pixels;
  at::Tensor
      images;  ///< float32 [B, C, H, W] in [-1, 1], taken as they are; where `pixels` is empty

  std::int64_t size() const { return static_cast<std::int64_t>(keys.size()); }
};

/// A physical batch as an objective drew it: tensors whose meaning is the objective's own. Their
/// number and shapes, and which of them are undefined, are the same for all batches of one size, so
/// that a recorded step copies them by index.
struct TrainingBatch {
  std::vector<at::Tensor> inputs;
  at::Tensor mask;            ///< float32 [B]: 1 real, 0 padding; on the CPU
  std::int64_t examples = 0;  ///< B, padding included
};

/// What is trained on private examples: a network and a loss. Gradients, clipping and noise know no
/// more of a generator than this. For a GAN it is the discriminator's.
class Objective {
 public:
  virtual ~Objective() = default;

  /// Of the images that the network was made for; where it does not say, small ones.
  virtual ImageShape image_shape() const = 0;
  /// Noise multiplicity K: the losses of an example are the mean over K draws, which are clipped
  /// together (Dockhorn et al. 2023, section 3).
  virtual std::int64_t draws() const = 0;
  /// The setting by which there are fewer of them, for messages ("diffusion.draws"); empty where
  /// there is none.
  virtual std::string draws_setting() const { return {}; }
  /// All of the network that the losses go through, frozen ones too.
  virtual std::vector<Parameter*> parameters() = 0;

  /// Everything random in a batch, and its augmented images, on the CPU. An example's part is a
  /// function of (seed, step, its key and content) and of nothing else: other records change
  /// nothing in its gradient. Touches no network: a thread of its own draws the next batch, beside
  /// place(), losses() and Generator::after_release().
  virtual TrainingBatch draw(const ExampleBatch& examples, std::uint64_t seed,
                             std::uint64_t step) const = 0;
  /// The batch where the network is, ready for losses(); the mask stays where it is.
  virtual TrainingBatch place(const TrainingBatch& drawn) const = 0;
  /// [B] float32: the loss of each example of a placed batch. `tape` is null for ordinary training.
  virtual at::Tensor losses(const TrainingBatch& placed, Tape* tape) const = 0;
};

/// Random images and labels 0 of an objective's shape, for checks before the first step and for
/// benchmarks. Examples with equal `keys` get equal images.
ExampleBatch synthetic_examples(const ImageShape& shape, std::span<const std::uint64_t> keys);
/// The same, drawn.
TrainingBatch synthetic_batch(const Objective& objective, std::span<const std::uint64_t> keys);

}  // namespace sfumato
