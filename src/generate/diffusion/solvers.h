#pragma once
#include <memory>
#include <vector>

#include "sfumato/generate/diffusion/solver.h"

namespace sfumato {

/// Makes a solver, which takes from the settings what is its own alone. UsageError for options that
/// it refuses.
using MakeSolver = std::unique_ptr<Solver>(const NoiseSchedule& schedule,
                                           const SolverOptions& options,
                                           const SampleSettings& settings);

/// Which settings it reads that not every other does: config/sampling_rules.h.
struct SolverRow {
  Sampler sampler;
  MakeSolver* make;
};

/// The table: all solvers that there are.
const std::vector<SolverRow>& solvers();

}  // namespace sfumato
