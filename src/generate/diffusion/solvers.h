#pragma once
#include <memory>
#include <string>
#include <vector>

#include "sfumato/generate/diffusion/solver.h"

namespace sfumato {

/// Makes a solver, which takes from the settings what is its own alone. UsageError for options that
/// it refuses.
using MakeSolver = std::unique_ptr<Solver>(const NoiseSchedule& schedule,
                                           const SolverOptions& options,
                                           const SampleSettings& settings);

struct SolverRow {
  Sampler sampler;
  /// Settings that this solver reads and not every other does: "sample.eta".
  std::vector<std::string> own_settings;
  MakeSolver* make;
};

/// The table: all solvers that there are.
const std::vector<SolverRow>& solvers();
/// Whether a setting can change what the solver draws: one that is no other solver's alone.
bool solver_reads(Sampler sampler, const std::string& setting);

}  // namespace sfumato
