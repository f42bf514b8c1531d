#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "sfumato/bench/micro_benchmarks.h"
#include "sfumato/bench/step_benchmark.h"
#include "sfumato/dist/communicator.h"

namespace sfumato {

/// How the step of a RankBenchmark is cut up.
struct RankedStep {
  StepCase step_case;  ///< with the physical batch
  AlgorithmPolicy policy = AlgorithmPolicy::kAuto;
  int64_t batch = 64;  ///< the logical one: a multiple of ranks x physical batch
  int repeat = 3;
};

/// What a private step costs in one process and in several, on the same machines in one run.
struct RankTimings {
  int64_t ranks = 1;
  int64_t parameters = 0;
  Timing alone;     ///< rank 0 takes the whole logical step while the others wait
  Timing apart;     ///< every rank takes its share, and exchanges nothing: what the machines allow
  Timing together;  ///< the ranks take the step together
  Timing exchange;  ///< the sums of the gradients and the weights of such a step, and nothing else
  int64_t summed_bytes = 0;                  ///< int64, each rank's part of the sum to all
  int64_t weights_bytes = 0;                 ///< float32, each rank's slice to all
  int64_t alone_peak_bytes = 0;              ///< resident; on a GPU of tensors; 0: not known
  std::vector<int64_t> together_peak_bytes;  ///< of every rank

  /// Of 1: W ranks take a step W times as fast as one.
  double efficiency() const {
    return alone.median / (static_cast<double>(ranks) * together.median);
  }
  /// The most that could be had: several processes share memory, caches and clocks of a machine.
  double machine_efficiency() const {
    return alone.median / (static_cast<double>(ranks) * apart.median);
  }
  /// What a rank has to send, on average. (Gloo's reductions send half of the sums again.)
  double sent_bytes() const {
    const auto w = static_cast<double>(ranks);
    return (w - 1) / w * static_cast<double>(summed_bytes + weights_bytes);
  }
};

/// Collective; the figures are rank 0's, whose clock runs from when all begin to when all end.
/// UsageError where there is one rank, or the batch cannot be cut evenly.
RankTimings benchmark_ranks(const RankedStep& step, const std::shared_ptr<Communicator>& ranks);

}  // namespace sfumato
