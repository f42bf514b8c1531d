#include "sfumato/bench/rank_benchmark.h"

#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <chrono>
#include <optional>

#include "sfumato/core/error.h"
#include "sfumato/device/gpu.h"
#include "sfumato/generate/placement.h"
#include "sfumato/grad/parameter_slices.h"

namespace sfumato {
namespace {

using Clock = std::chrono::steady_clock;

void check_shares(const RankedStep& step, int64_t ranks) {
  if (ranks < 2)
    throw UsageError(
        "a benchmark of ranks needs several processes: start it by .venv/bin/torchrun --no-python "
        "--nproc-per-node=2, srun or the like");
  const int64_t examples = step.step_case.examples;
  if (step.batch < 1 || step.batch % (ranks * examples) != 0)
    throw UsageError(
        fmt::format("a logical batch of {} is no multiple of {} processes times a physical batch "
                    "of {}; choose another --batch or --examples",
                    step.batch, ranks, examples));
}

bool on_gpu(const RankedStep& step) { return step.step_case.device == ComputeDevice::kCuda; }

void reset_peak(const RankedStep& step) {
  if (on_gpu(step))
    find_gpu_backend()->reset_peak();
  else
    (void)reset_peak_resident();
}

int64_t peak(const RankedStep& step) {
  return on_gpu(step) ? find_gpu_backend()->memory().peak : peak_resident_bytes();
}

/// Of one process that takes such steps and does nothing else, in bytes.
int64_t peak_of(const RankedStep& step, const StepShare& share) {
  reset_peak(step);
  StepBenchmark benchmark(step.step_case, step.policy, share);
  (void)benchmark.run(StepKind::kPrivate, 2);
  return peak(step);
}

/// Seconds until all ranks have done `work`, which a rank may take as long as it likes for.
template <class Work>
double seconds_of_all(Communicator& ranks, Work work) {
  const RankHold hold(ranks);
  ranks.barrier();
  const auto start = Clock::now();
  work();
  ranks.barrier();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// What a step exchanges, through the same calls.
class Exchange {
 public:
  Exchange(int64_t elements, const RankedStep& step, const std::shared_ptr<Communicator>& ranks)
      : weights_({.name = "weights", .value = at::zeros({elements}, options(step))}),
        slices_({&weights_}, ranks),
        sums_(at::zeros({slices_.size()}, options(step).dtype(at::kLong))) {}
  void run() const {
    slices_.ranks().reduce_slices({sums_});
    slices_.share({weights_.value});
  }
  int64_t summed_bytes() const { return static_cast<int64_t>(sums_.nbytes()); }
  int64_t weights_bytes() const { return static_cast<int64_t>(weights_.value.nbytes()); }

 private:
  static at::TensorOptions options(const RankedStep& step) {
    return at::TensorOptions().dtype(at::kFloat).device(open_device(step.step_case.device));
  }
  Parameter weights_;
  ParameterSlices slices_;
  at::Tensor sums_;
};

}  // namespace

RankTimings benchmark_ranks(const RankedStep& step, const std::shared_ptr<Communicator>& ranks) {
  check_shares(step, ranks->size());
  const int64_t batches = step.batch / step.step_case.examples;
  const StepShare whole{batches}, part{batches / ranks->size()},
      shared{batches / ranks->size(), ranks};
  RankTimings timings;
  timings.ranks = ranks->size();
  timings.together_peak_bytes = ranks->gather(peak_of(step, shared));
  (void)seconds_of_all(*ranks, [&] {
    if (ranks->leads()) timings.alone_peak_bytes = peak_of(step, whole);
  });

  std::optional<StepBenchmark> alone;
  if (ranks->leads()) alone.emplace(step.step_case, step.policy, whole);
  StepBenchmark apart(step.step_case, step.policy, part);
  StepBenchmark together(step.step_case, step.policy, shared);
  const Exchange exchange(together.exchanged(), step, ranks);
  timings.parameters = together.parameters();
  timings.summed_bytes = exchange.summed_bytes();
  timings.weights_bytes = exchange.weights_bytes();

  std::vector<double> seconds[4];
  // In turns, so that a slower minute of a machine meets all; the first turn warms up.
  for (int i = -1; i < step.repeat; ++i) {
    const double taken[] = {seconds_of_all(*ranks,
                                           [&] {
                                             if (alone) (void)alone->run(StepKind::kPrivate);
                                           }),
                            seconds_of_all(*ranks, [&] { (void)apart.run(StepKind::kPrivate); }),
                            seconds_of_all(*ranks, [&] { (void)together.run(StepKind::kPrivate); }),
                            seconds_of_all(*ranks, [&] { exchange.run(); })};
    for (int kind = 0; kind < 4 && i >= 0; ++kind) seconds[kind].push_back(taken[kind]);
  }
  timings.alone = summarize(seconds[0]);
  timings.apart = summarize(seconds[1]);
  timings.together = summarize(seconds[2]);
  timings.exchange = summarize(seconds[3]);
  return timings;
}

}  // namespace sfumato
