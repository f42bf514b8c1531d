#include "generate/diffusion/solvers.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>
#include <stdexcept>

#include "sfumato/config/sampling_rules.h"
#include "sfumato/core/error.h"

namespace sfumato {

// Each in the file of its name.
MakeSolver make_ddpm, make_ddim, make_heun, make_dpmpp, make_unipc;

const std::vector<SolverRow>& solvers() {
  static const std::vector<SolverRow> kTable = {
      {Sampler::kDdpm, make_ddpm},     {Sampler::kDdim, make_ddim},
      {Sampler::kEuler, make_heun},    {Sampler::kHeun, make_heun},
      {Sampler::kDpmpp1, make_dpmpp},  {Sampler::kDpmpp2M, make_dpmpp},
      {Sampler::kDpmpp3M, make_dpmpp}, {Sampler::kSdeDpmpp2M, make_dpmpp},
      {Sampler::kUniPc, make_unipc}};
  return kTable;
}

namespace {

const SolverRow& row_of(Sampler sampler) {
  for (const SolverRow& row : solvers())
    if (row.sampler == sampler) return row;
  throw std::logic_error("no row in the table of solvers for " + to_string(sampler));
}

}  // namespace

std::unique_ptr<Solver> make_solver(const NoiseSchedule& schedule, const SampleSettings& settings,
                                    Prediction prediction, const std::optional<EdmOptions>& edm) {
  const std::vector<std::string> mistakes =
      sampling_mistakes(settings, edm ? Parameterization::kEdm : Parameterization::kVp);
  if (!mistakes.empty()) throw UsageError(fmt::format("{}", fmt::join(mistakes, "\n")));
  const SolverOptions options = {.prediction = prediction,
                                 .steps = settings.steps(),
                                 .spacing = settings.spacing(),
                                 .steps_offset = settings.steps_offset(),
                                 .clip_sample = settings.clip_sample(),
                                 .clip_sample_range = settings.clip_sample_range(),
                                 .edm = edm};
  // Without noise of its own DDIM on EDM's levels is Euler's step (Karras et al. 2022, section 3).
  const Sampler sampler =
      edm && settings.sampler() == Sampler::kDdim ? Sampler::kEuler : settings.sampler();
  return row_of(sampler).make(schedule, options, settings);
}

std::unique_ptr<Solver> make_solver(const DiffusionSettings& diffusion,
                                    const SampleSettings& settings) {
  return make_solver(NoiseSchedule(noise_schedule_options(diffusion)), settings,
                     diffusion.prediction(), edm_options(diffusion));
}

nlohmann::ordered_json Solver::settings() const {
  return {{"scheduler", scheduler_config()}, {"steps", options_.steps}};
}

nlohmann::ordered_json Solver::script_settings() const { return nullptr; }

}  // namespace sfumato
