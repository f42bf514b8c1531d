#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "sfumato/config/config.h"
#include "sfumato/privacy/mechanism.h"

namespace sfumato {

/// What people know who think in epochs: public numbers, never counted from the private set.
struct PublicSize {
  std::optional<std::int64_t> records;  ///< about how many images there are
  std::optional<double> epochs;         ///< how often each joins a step, on average
};

/// Sets mechanism.sample_rate, steps and expected_batch_size of `config` from them: the batch is
/// expected_batch_size where that was set, else sample_rate x records; then q = batch / records and
/// steps = epochs / q. UsageError: epochs without records, a batch above the records.
void apply(const PublicSize& size, Config& config);

/// A training that was done on public images by this program, for comparison: configs/README.md and
/// README.md say how, and tests compute its signal again from its configuration.
struct PublicResult {
  const char* configuration;  ///< in configs/
  std::int64_t steps, batch;
  double signal;        ///< signal_per_step() of its plan
  const char* outcome;  ///< "74.0 % (Fashion-MNIST, ...)"
};
const std::vector<PublicResult>& public_results();

/// batch / (noise_multiplier sqrt(trainable)): the length of the clipped gradients, all of one
/// direction and as long as the clip allows, over that of the noise. More is never reached.
double signal_per_step(double batch, double noise_multiplier, std::int64_t trainable);
/// Of all steps together, if their gradients agree: sqrt(steps) times that of one.
double signal_of_all(double signal_per_step, std::int64_t steps);

enum class Outlook { kNoise, kUnknown, kPictures };
/// Where public results of signal_of_all are: pictures were noise up to 8.4, and recognised by a
/// classifier from 32 on; what lies between nobody tried here.
Outlook outlook_of(double signal_of_all);

/// One choice of steps, batch and target.
struct PlanRow {
  std::int64_t steps = 0;
  double batch = 0, sample_rate = 0, epsilon = 0;
  std::optional<double> noise_multiplier;  ///< empty where no noise reaches epsilon
  bool is_configured = false;              ///< this is the configuration itself
  double signal = 0, total_signal = 0;     ///< 0 without noise_multiplier
};

/// Before anything private is touched: what a configuration will spend, and its neighbours.
struct RunPlan {
  MechanismPlan mechanism;  ///< what `train` will freeze
  double epsilon = 0;       ///< of all its steps
  std::int64_t trainable = 0;
  std::vector<PlanRow> rows;
};

/// `mechanism`: make_plan(config). Half, once and twice its steps, batch (with its sample rate) and
/// epsilon, or `epsilons`. The noise of other rows is estimated: by RDP, in milliseconds, times
/// what the configured accountant makes of the configured row. Rows of sample rates above 1 are
/// left out. Not for a plan that is not private.
RunPlan plan_run(const MechanismPlan& mechanism, std::int64_t trainable,
                 std::vector<double> epsilons = {});

}  // namespace sfumato
