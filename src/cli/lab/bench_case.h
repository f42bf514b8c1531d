#pragma once
#include <CLI/CLI.hpp>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "sfumato/bench/micro_benchmarks.h"
#include "sfumato/bench/step_benchmark.h"

namespace sfumato::cli {

/// What a benchmark of steps runs on; 0 and empty: as the case has it.
struct CaseOptions {
  std::string network, generator, case_name;
  std::int64_t examples = 0, draws = 0;
  ComputeDevice device = ComputeDevice::kCpu;
  Precision precision = Precision::kFp32;
};

/// --network, --generator, --case, --examples, --draws and --device. `none`: what serves where
/// neither network nor case is named, for the help.
void add_case_options(CLI::App& sub, CaseOptions& options, const std::string& none);
/// `step_case` with the sizes and the device that were asked for.
StepCase adjusted(StepCase step_case, const CaseOptions& options);
/// The network or the case that was named; one of them was.
StepCase named_case(const CaseOptions& options);

/// Seconds: {"min_s": ..., "median_s": ..., "max_s": ...}.
nlohmann::ordered_json timing_json(const Timing& timing);

}  // namespace sfumato::cli
