#pragma once
#include <memory>
#include <stdexcept>

#include "generate/diffusion/one_step_solver.h"

namespace sfumato::test {

/// The solver of `options`, whose single steps a test looks at.
inline std::unique_ptr<OneStepSolver> one_step_solver(const NoiseSchedule& schedule,
                                                      const SolverOptions& options) {
  std::unique_ptr<Solver> solver = make_solver(schedule, options);
  auto* one_step = dynamic_cast<OneStepSolver*>(solver.get());
  if (one_step == nullptr) throw std::logic_error(options.solver + " takes no single steps");
  solver.release();
  return std::unique_ptr<OneStepSolver>(one_step);
}

}  // namespace sfumato::test
