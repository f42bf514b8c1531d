#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "sfumato/config/settings_tree.h"
#include "sfumato/core/choices.h"

// The declarations of diffusion and of drawing from it; sections.h says how.
// clang-format off
namespace sfumato {

struct DiffusionSettings : Section {
  explicit DiffusionSettings(SettingsTree* tree);

  Setting<Parameterization> parameterization{this, "parameterization", Parameterization::kVp,
      "What the network is told of the noise. vp: a timestep of the schedule of β; edm: a quarter of "
      "log sigma, its inputs and outputs scaled to unit variance, sigma drawn log-normally (Karras "
      "et al. 2022). All of beta_*, schedule, num_train_timesteps and timestep_power is for vp."};
  Setting<double> sigma_data{this, "sigma_data", 0.5, greater_than(0), "",
      "Standard deviation of the images' values, for edm: a public literal, never measured on the "
      "private ones. 0.5 is usual; 0.57735, that of values even in [-1, 1], in work on private "
      "diffusion."};
  Setting<double> p_mean{this, "p_mean", -1.2, between(-20, 20), "",
      "Mean of log sigma in training, for edm."};
  Setting<double> p_std{this, "p_std", 1.2, above_up_to(0, 20), "",
      "Standard deviation of log sigma in training, for edm."};
  Setting<Prediction> prediction{this, "prediction", Prediction::kEpsilon,
      "What the network predicts: the noise, the clean image, or v. For edm epsilon, or "
      "v_prediction, which is the same with the other sign."};
  Setting<BetaSchedule> schedule{this, "schedule", BetaSchedule::kLinear,
      "How β grows with the timestep; squaredcos_cap_v2 is the cosine schedule and does not use "
      "beta_start and beta_end."};
  Setting<int64_t> num_train_timesteps{this, "num_train_timesteps", 1000, between(1, 100000), "",
      "Number T of timesteps of the forward process."};
  Setting<double> beta_start{this, "beta_start", 1e-4, strictly_between(0, 1), "",
      "β of the first timestep."};
  Setting<double> beta_end{this, "beta_end", 0.02, strictly_between(0, 1), "",
      "β of the last timestep."};
  Setting<bool> rescale_betas_zero_snr{this, "rescale_betas_zero_snr", false, any_value(), "",
      "Rescales the schedule so that the last timestep is pure noise; needs prediction "
      "v_prediction or sample."};
  Setting<int64_t> draws{this, "draws", 1, between(1, 256), "draws per image",
      "Number K of noise draws of an image in a step. They are one example: one loss, one clip, "
      "so K costs time and no privacy."};
  Setting<double> timestep_power{this, "timestep_power", 1.0, greater_than(0), "",
      "Timesteps are drawn with density proportional to (t/T)^(p-1): 1 is uniform, more favours "
      "noisy steps, less favours nearly clean ones."};
  Setting<double> label_dropout{this, "label_dropout", 0.0, between(0, 1), "",
      "Probability that a draw is trained without its label, for edm all draws of an image together; "
      "needed for guidance when sampling."};
  Setting<bool> horizontal_flip{this, "horizontal_flip", false, any_value(), "",
      "Each draw mirrors its image with probability 1/2."};
  Setting<int64_t> shift_pixels{this, "shift_pixels", 0, between(0, 64), "pixels",
      "Each draw shifts its image by up to this much in each direction; edges are repeated."};
};

struct SampleSettings : Section {
  explicit SampleSettings(SettingsTree* tree);

  Setting<Sampler> sampler{this, "sampler", Sampler::kDdim,
      "How images are drawn from the network. ddpm and ddim step from timestep to timestep (ddim "
      "of an edm network is euler); dpmpp_1, dpmpp_2m, dpmpp_3m and unipc need fewer steps, and "
      "sde_dpmpp_2m adds fresh noise; euler and heun (two calls a step) are for edm and take churn."};
  Setting<int64_t> steps{this, "steps", 50, at_least(1), "steps",
      "Denoising steps; of vp networks at most diffusion.num_train_timesteps."};
  Setting<double> eta{this, "eta", 0.0, between(0, 1), "",
      "Fresh noise in a ddim step: 0 is deterministic, 1 resembles ddpm."};
  Setting<TimestepSpacing> spacing{this, "spacing", TimestepSpacing::kTrailing,
      "How the steps are spread over the timesteps."};
  Setting<DdpmVariance> variance{this, "variance", DdpmVariance::kFixedSmall,
      "Variance of a ddpm step: of the posterior (fixed_small_log: taken through its logarithm, "
      "which is the same but for rounding), or β."};
  Setting<bool> clip_sample{this, "clip_sample", true, any_value(), "",
      "Clips the predicted clean image in every step."};
  Setting<double> clip_sample_range{this, "clip_sample_range", 1.0, greater_than(0), "",
      "The predicted clean image is clipped to plus or minus this."};
  Setting<bool> use_clipped_model_output{this, "use_clipped_model_output", false, any_value(), "",
      "Recomputes the predicted noise from the clipped image in a ddim step."};
  Setting<bool> set_alpha_to_one{this, "set_alpha_to_one", true, any_value(), "",
      "The last ddim step goes to the clean image; false stops at the first timestep's level."};
  Setting<int64_t> steps_offset{this, "steps_offset", 0, at_least(0), "timesteps",
      "Added to the timesteps of leading spacing."};
  Setting<SigmaSchedule> sigma_schedule{this, "sigma_schedule", SigmaSchedule::kAuto,
      "Which levels of noise the steps visit: those of the timesteps that spacing chooses (auto, of "
      "an edm network karras), levels even in sigma^(1/rho) (karras) or even in log sigma."};
  Setting<double> sigma_min{this, "sigma_min", 0.002, greater_than(0), "",
      "The last level before the end, for edm."};
  Setting<double> sigma_max{this, "sigma_max", 80.0, greater_than(0), "",
      "The first level, for edm: the noise that images begin as."};
  Setting<double> rho{this, "rho", 7.0, at_least(1), "",
      "Of karras levels for edm: more visits more of those near sigma_min."};
  Setting<FinalSigma> final_sigmas_type{this, "final_sigmas_type", FinalSigma::kZero,
      "Where the last step of dpmpp and unipc solvers ends: without noise, or at the least noise of "
      "the schedule."};
  Setting<SolverType> solver_type{this, "solver_type", SolverType::kAuto,
      "Form of the higher orders: midpoint (auto) or heun of dpmpp solvers, bh2 (auto) or bh1 of "
      "unipc."};
  Setting<bool> euler_at_final{this, "euler_at_final", false, any_value(), "",
      "The last step of a dpmpp solver is of first order even where final_sigmas_type is sigma_min "
      "and there are 15 steps or more, which overshoot otherwise."};
  Setting<int64_t> solver_order{this, "solver_order", 2, between(1, 3), "",
      "Order of unipc."};
  Setting<bool> predict_x0{this, "predict_x0", true, any_value(), "",
      "unipc goes by the clean image; false goes by the noise, which needs final_sigmas_type "
      "sigma_min and clip_sample false."};
  Setting<std::vector<int64_t>> disable_corrector{this, "disable_corrector", {}, at_least(0), "",
      "Steps of unipc, counted from 0, whose end is not corrected; with much guidance 0 and 1."};
  Setting<double> s_churn{this, "s_churn", 0.0, at_least(0), "",
      "Noise that heun and euler add before their steps, over all of them: each raises sigma by "
      "s_churn / steps of itself, at most by 41 %. 0 is deterministic."};
  Setting<double> s_min{this, "s_min", 0.0, at_least(0), "",
      "Churn at sigma of this or more alone."};
  Setting<std::optional<double>> s_max{this, "s_max", std::nullopt, greater_than(0), "",
      "Churn at sigma of this or less alone; null knows no bound."};
  Setting<double> s_noise{this, "s_noise", 1.0, greater_than(0), "",
      "Standard deviation of the noise of churn, by which it makes up for what is lost of detail."};
  Setting<double> guidance{this, "guidance", 0.0, at_least(0), "",
      "Classifier-free guidance w in (1+w)·conditional - w·unconditional; needs a network "
      "trained with label_dropout. 0 is off and twice as fast."};
  Setting<double> guidance_sigma_min{this, "guidance_sigma_min", 0.0, at_least(0), "",
      "Guides where sigma, noise over signal, is this or more alone; elsewhere the label alone "
      "counts, in half the time."};
  Setting<std::optional<double>> guidance_sigma_max{this, "guidance_sigma_max", std::nullopt,
      greater_than(0), "",
      "Guides where sigma is this or less alone; null knows no bound."};
  Setting<int64_t> batch{this, "batch", 64, at_least(1), "images",
      "Images drawn together; it does not change them."};
  Setting<int64_t> candidates{this, "candidates", 1, between(1, 64), "images",
      "Images drawn for each that is kept. Those are kept that are like their class by the noisy "
      "means that mechanism.stages.feature_means released, and by the classifier of "
      "mechanism.stages.feature_classifier where there is one; 6 give most of the gain, 12 a little "
      "more (docs/utility.md). It costs no privacy."};
  Setting<int64_t> seed{this, "seed", 0, at_least(0), "",
      "The same seed gives the same images, whatever the batch."};
  Setting<CorpusFormat> format{this, "format", CorpusFormat::kFolder,
      "Form of the corpus: an image folder or WebDataset tar shards."};
};

}  // namespace sfumato
// clang-format on
