// The options of solvers by their names in settings, which are those of diffusers.
#include "generate/diffusion/parse_name.h"
#include "sfumato/config/sections.h"
#include "sfumato/core/error.h"
#include "sfumato/generate/diffusion/solver.h"

namespace sfumato {
namespace {

const std::vector<std::string> kSpacings = {"leading", "trailing", "linspace"};
const std::vector<std::string> kVariances = {"fixed_small", "fixed_small_log", "fixed_large"};

}  // namespace

TimestepSpacing parse_timestep_spacing(const std::string& name) {
  return parse_name<TimestepSpacing>(name, kSpacings, "timestep spacing");
}
DdpmVariance parse_ddpm_variance(const std::string& name) {
  if (name == "fixed_large_log")
    throw UsageError(
        "variance 'fixed_large_log' is refused: its definition in diffusers takes the "
        "square root of a negative number; use fixed_large");
  return parse_name<DdpmVariance>(name, kVariances, "variance");
}
std::string to_string(TimestepSpacing spacing) {
  return kSpacings.at(static_cast<std::size_t>(spacing));
}
std::string to_string(DdpmVariance variance) {
  return kVariances.at(static_cast<std::size_t>(variance));
}

SolverOptions solver_options(const SampleSettings& settings, Prediction prediction) {
  return {.solver = settings.sampler(),
          .prediction = prediction,
          .steps = settings.steps(),
          .spacing = parse_timestep_spacing(settings.spacing()),
          .steps_offset = settings.steps_offset(),
          .clip_sample = settings.clip_sample(),
          .clip_sample_range = settings.clip_sample_range(),
          .variance = parse_ddpm_variance(settings.variance()),
          .eta = settings.eta(),
          .use_clipped_model_output = settings.use_clipped_model_output(),
          .set_alpha_to_one = settings.set_alpha_to_one()};
}

}  // namespace sfumato
