#include "generate/diffusion/solvers.h"

#include <fmt/format.h>

#include <algorithm>

#include "sfumato/config/sections.h"
#include "sfumato/core/error.h"
#include "sfumato/core/text.h"

namespace sfumato {

// Each in the file of its name.
std::unique_ptr<Solver> make_ddpm(const NoiseSchedule& schedule, const SolverOptions& options);
std::unique_ptr<Solver> make_ddim(const NoiseSchedule& schedule, const SolverOptions& options);

const std::vector<SolverRow>& solvers() {
  static const std::vector<SolverRow> kTable = {
      {"ddpm", "DDPMScheduler", {"sample.variance"}, make_ddpm},
      {"ddim",
       "DDIMScheduler",
       {"sample.eta", "sample.use_clipped_model_output", "sample.set_alpha_to_one"},
       make_ddim}};
  return kTable;
}

const SolverRow& solver_row(const std::string& name) {
  std::vector<std::string> names;
  for (const SolverRow& row : solvers()) {
    if (row.name == name) return row;
    names.push_back(row.name);
  }
  throw UsageError(fmt::format("unknown sampler '{}'{}", name, did_you_mean(name, names)));
}

bool solver_reads(const std::string& name, const std::string& setting) {
  const auto lists = [&](const SolverRow& row) {
    return std::ranges::find(row.own_settings, setting) != row.own_settings.end();
  };
  return lists(solver_row(name)) || std::ranges::none_of(solvers(), lists);
}

std::unique_ptr<Solver> make_solver(const NoiseSchedule& schedule, const SolverOptions& options) {
  return solver_row(options.solver).make(schedule, options);
}

SolverOptions solver_options(const SampleSettings& settings, Prediction prediction) {
  return {.solver = settings.sampler(),
          .prediction = prediction,
          .steps = settings.steps(),
          .spacing = settings.spacing(),
          .steps_offset = settings.steps_offset(),
          .clip_sample = settings.clip_sample(),
          .clip_sample_range = settings.clip_sample_range(),
          .variance = settings.variance(),
          .eta = settings.eta(),
          .use_clipped_model_output = settings.use_clipped_model_output(),
          .set_alpha_to_one = settings.set_alpha_to_one()};
}

}  // namespace sfumato
