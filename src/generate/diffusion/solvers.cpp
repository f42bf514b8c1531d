#include "generate/diffusion/solvers.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "sfumato/config/sections.h"

namespace sfumato {

// Each in the file of its name.
MakeSolver make_ddpm, make_ddim;

const std::vector<SolverRow>& solvers() {
  static const std::vector<SolverRow> kTable = {
      {Sampler::kDdpm, {"sample.variance"}, make_ddpm},
      {Sampler::kDdim,
       {"sample.eta", "sample.use_clipped_model_output", "sample.set_alpha_to_one"},
       make_ddim}};
  return kTable;
}

namespace {

const SolverRow& row_of(Sampler sampler) {
  for (const SolverRow& row : solvers())
    if (row.sampler == sampler) return row;
  throw std::logic_error("no row in the table of solvers for " + to_string(sampler));
}

}  // namespace

bool solver_reads(Sampler sampler, const std::string& setting) {
  const auto lists = [&](const SolverRow& row) {
    return std::ranges::find(row.own_settings, setting) != row.own_settings.end();
  };
  return lists(row_of(sampler)) || std::ranges::none_of(solvers(), lists);
}

std::unique_ptr<Solver> make_solver(const NoiseSchedule& schedule, const SampleSettings& settings,
                                    Prediction prediction) {
  const SolverOptions options = {.prediction = prediction,
                                 .steps = settings.steps(),
                                 .spacing = settings.spacing(),
                                 .steps_offset = settings.steps_offset(),
                                 .clip_sample = settings.clip_sample(),
                                 .clip_sample_range = settings.clip_sample_range()};
  return row_of(settings.sampler()).make(schedule, options, settings);
}

nlohmann::ordered_json Solver::settings() const {
  return {{"scheduler", scheduler_config()}, {"steps", options_.steps}};
}

}  // namespace sfumato
