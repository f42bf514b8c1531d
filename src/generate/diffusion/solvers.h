#pragma once
#include <memory>
#include <string>
#include <vector>

#include "sfumato/generate/diffusion/solver.h"

namespace sfumato {

struct SolverRow {
  std::string name;             ///< as sample.sampler offers it
  std::string diffusers_class;  ///< the scheduler of diffusers that draws likewise
  /// Settings that this solver reads and not every other does: "sample.eta".
  std::vector<std::string> own_settings;
  std::unique_ptr<Solver> (*make)(const NoiseSchedule&, const SolverOptions&);
};

/// The table: all solvers that there are.
const std::vector<SolverRow>& solvers();
/// UsageError for a name that no row has.
const SolverRow& solver_row(const std::string& name);
/// Whether a setting can change what the solver draws: one that is no other solver's alone.
bool solver_reads(const std::string& name, const std::string& setting);

}  // namespace sfumato
