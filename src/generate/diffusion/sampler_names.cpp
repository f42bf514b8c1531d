// Names of the sampler's options and its configuration file, as diffusers writes them.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

#include "generate/diffusion/parse_name.h"
#include "sfumato/core/error.h"
#include "sfumato/core/text.h"
#include "sfumato/generate/diffusion/sampler.h"
#include "sfumato/models/unet2d_config.h"

namespace sfumato {
namespace {

const std::vector<std::string> kKinds = {"ddpm", "ddim"};

/// The fields that both schedulers have.
nlohmann::ordered_json common_config(const NoiseScheduleOptions& schedule,
                                     const SamplerOptions& options) {
  return {{"_class_name", options.kind == SamplerKind::kDdpm ? "DDPMScheduler" : "DDIMScheduler"},
          {"_diffusers_version", kDiffusersVersion},
          {"beta_end", schedule.beta_end},
          {"beta_schedule", to_string(schedule.schedule)},
          {"beta_start", schedule.beta_start},
          {"clip_sample", options.clip_sample},
          {"clip_sample_range", options.clip_sample_range},
          {"dynamic_thresholding_ratio", 0.995},
          {"num_train_timesteps", schedule.num_train_timesteps},
          {"prediction_type", to_string(options.prediction)},
          {"rescale_betas_zero_snr", schedule.rescale_betas_zero_snr},
          {"sample_max_value", 1.0},
          {"steps_offset", options.steps_offset},
          {"thresholding", false},
          {"timestep_spacing", to_string(options.spacing)},
          {"trained_betas", nullptr}};
}

}  // namespace

SamplerKind parse_sampler_kind(const std::string& name) {
  return parse_name<SamplerKind>(name, kKinds, "sampler");
}
std::string to_string(SamplerKind kind) { return kKinds.at(static_cast<std::size_t>(kind)); }

nlohmann::ordered_json Sampler::scheduler_config() const {
  nlohmann::ordered_json config = common_config(schedule_, options_);
  if (options_.kind == SamplerKind::kDdpm) {
    config["variance_type"] = to_string(options_.variance);
  } else {
    config["set_alpha_to_one"] = options_.set_alpha_to_one;
  }
  return config;
}

nlohmann::ordered_json ddpm_scheduler_config(const NoiseScheduleOptions& schedule,
                                             Prediction prediction) {
  SamplerOptions options;
  options.kind = SamplerKind::kDdpm;
  options.prediction = prediction;
  options.steps = 1;
  // The first timestep of a schedule that ends in pure noise is the one that it was rescaled for.
  // Of all others leading spacing ends without noise under diffusers' DDIMScheduler too.
  if (schedule.rescale_betas_zero_snr && prediction != Prediction::kEpsilon)
    options.spacing = TimestepSpacing::kTrailing;
  return Sampler(NoiseSchedule(schedule), options).scheduler_config();
}

}  // namespace sfumato
