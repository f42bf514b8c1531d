#pragma once
#include <memory>
#include <stdexcept>
#include <string>

#include "generate/diffusion/one_step_solver.h"
#include "sfumato/config/config.h"

namespace sfumato::test {

/// What decides a solver, its own options among it, as values that a test changes.
struct DrawingOptions : SolverOptions {
  std::string solver = "ddim";
  DdpmVariance variance = DdpmVariance::kFixedSmall;
  double eta = 0.0;
  bool use_clipped_model_output = false;
  bool set_alpha_to_one = true;
};

inline std::unique_ptr<Solver> make_solver(const NoiseSchedule& schedule,
                                           const DrawingOptions& options) {
  SettingsTree tree;
  SampleSettings settings(&tree);
  settings.sampler.set(parse_enum<Sampler>(options.solver));
  settings.steps.set(options.steps);
  settings.spacing.set(options.spacing);
  settings.steps_offset.set(options.steps_offset);
  settings.clip_sample.set(options.clip_sample);
  settings.clip_sample_range.set(options.clip_sample_range);
  settings.variance.set(options.variance);
  settings.eta.set(options.eta);
  settings.use_clipped_model_output.set(options.use_clipped_model_output);
  settings.set_alpha_to_one.set(options.set_alpha_to_one);
  return sfumato::make_solver(schedule, settings, options.prediction);
}

/// The solver of `options`, whose single steps a test looks at.
inline std::unique_ptr<OneStepSolver> one_step_solver(const NoiseSchedule& schedule,
                                                      const DrawingOptions& options) {
  std::unique_ptr<Solver> solver = make_solver(schedule, options);
  auto* one_step = dynamic_cast<OneStepSolver*>(solver.get());
  if (one_step == nullptr) throw std::logic_error(options.solver + " takes no single steps");
  solver.release();
  return std::unique_ptr<OneStepSolver>(one_step);
}

}  // namespace sfumato::test
