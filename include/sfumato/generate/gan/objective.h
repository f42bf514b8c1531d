#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "sfumato/core/choices.h"
#include "sfumato/generate/gan/augmentation.h"
#include "sfumato/generate/objective.h"
#include "sfumato/models/gan_networks.h"

namespace sfumato {

struct GanSettings;

/// What the loss of one record is made of.
struct GanOptions {
  GanLoss loss = GanLoss::kHinge;
  std::int64_t fakes = 1;                           ///< M
  double approximated_r1 = 0, approximated_r2 = 0;  ///< weights; 0: without
  double regulariser_noise = 0.01;                  ///< standard deviation
  GanAugmentation augmentation;

  /// Noisy copies among the draws: of the image, then of each fake.
  std::int64_t noisy_copies() const {
    return (approximated_r1 > 0 ? 1 : 0) + (approximated_r2 > 0 ? fakes : 0);
  }
  /// The image, its fakes, noisy copies.
  std::int64_t draws() const { return 1 + fakes + noisy_copies(); }
};
GanOptions gan_options(const GanSettings& settings);

/// float32 [B, draws()] scores -> [B] losses: the term of the image plus the mean of its fakes', or
/// the mean of their pairs, plus the approximated R1 and R2 (Lin et al. 2025): the mean over images
/// or fakes of (D(x) - D(x + noise))^2, times its weight.
at::Tensor pair_losses(const at::Tensor& scores, const GanOptions& options);

/// What the generator minimises: float32 [N] scores of its fakes -> [], their mean of -D for hinge
/// and relativistic, of -log s(D) for logistic. In the relativistic loss a fake is compared with a
/// private image, which no generator may look at: only the direction in which its score grows is
/// left.
at::Tensor generator_loss(const at::Tensor& scores, GanLoss loss);

/// What keeps the generator from drawing one image of a class whatever the latents are
/// (mode-seeking regularisation, Mao et al. 2019, section 3.2): 1 / (d + 1e-5), where d is the mean
/// |difference| of images [N, C, H, W] over that of their latents [N, Z], each of the first N / 2
/// (rounded down) compared with that N / 2 after it, whose label is to be the same. [].
at::Tensor mode_seeking_loss(const at::Tensor& images, const at::Tensor& latents);

/// A discriminator's loss of one record, whose image and M fakes are its draws: one loss, one clip.
/// The fakes follow from public streams of the record's own key and from the generator, which is
/// public, so that no record moves another's. Their labels are uniform; with the relativistic loss
/// they are the record's, for a difference of scores speaks of images of one class.
class GanObjective : public Objective {
 public:
  /// Borrows the networks; trains the discriminator's parameters.
  GanObjective(GeneratorNetwork& generator, DiscriminatorNetwork& discriminator,
               const GanOptions& options);

  ImageShape image_shape() const override { return shape_; }
  std::int64_t draws() const override { return options_.draws(); }
  std::string draws_setting() const override { return "gan.fakes"; }
  std::vector<Parameter*> parameters() override { return discriminator_.parameters(); }

  /// Inputs: images [B, C, H, W], latents [B, M, Z], labels int64 [B, 1 + M], noise
  /// [B, noisy_copies(), C, H, W] and choices [B, kGanChoices], both undefined where there are
  /// none.
  TrainingBatch draw(const ExampleBatch& examples, std::uint64_t seed,
                     std::uint64_t step) const override;
  /// Fakes of the generator in evaluation mode. Inputs: images [B draws, C, H, W], labels [B
  /// draws].
  TrainingBatch place(const TrainingBatch& drawn) const override;
  at::Tensor losses(const TrainingBatch& placed, Tape* tape) const override;

 private:
  GeneratorNetwork& generator_;
  DiscriminatorNetwork& discriminator_;
  GanOptions options_;
  ImageShape shape_;
  std::int64_t latent_size_, num_classes_;
};

}  // namespace sfumato
