#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "sfumato/bench/step_benchmark.h"

namespace sfumato::cli {

/// Peak memory of a process that does nothing but one kind of step, in bytes: its resident set, or
/// on a GPU the tensors alive.
struct StepMemory {
  int64_t idle = 0;      ///< program, libraries and network; on a GPU weights and moments
  int64_t gradient = 0;  ///< up to the gradient
  int64_t whole = 0;     ///< with noise and Adam
  int64_t held = 0;      ///< GPU only: what the allocator holds at the end, tensors or not
};

/// Steps between two looks at the clock: on a GPU the host prepares the next while one computes.
int64_t steps_in_a_row(ComputeDevice device);

/// In a child: one kind of step and nothing else, then a line for memory_in_child. `by_turns`:
/// before that line, "ready" and the parameters when the first steps are over, and for every line
/// of stdin the seconds of a whole step: so that another program lets it take turns with others.
void run_one_kind(const StepCase& step_case, StepKind kind, AlgorithmPolicy policy, bool by_turns);

/// Runs this program again, with `words` and --only, in which run_one_kind serves. DeviceError
/// where that fails.
StepMemory memory_in_child(std::vector<std::string> words, StepKind kind);

}  // namespace sfumato::cli
