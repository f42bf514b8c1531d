#pragma once
#include <cstdint>
#include <vector>

#include "sfumato/privacy/secure_random.h"

namespace sfumato {

/// Poisson sampling: every record joins a step by itself with probability `sample_rate`. The batch
/// size is random and secret; an empty batch is an ordinary one. Amplification by subsampling holds
/// for this sampler only: no shuffled epochs, no fixed batch size.
class PoissonSampler {
 public:
  /// Of training. `key` must outlive the sampler. UsageError unless 2^-64 <= sample_rate <= 1.
  PoissonSampler(const SecureKey& key, double sample_rate);

  /// Of a stage: its `place` among the stages of the plan makes its batches independent of those of
  /// all others, as those of training are. PrivacyError for a place below 0 or beyond 32 bits.
  static PoissonSampler of_stage(const SecureKey& key, double sample_rate, std::int64_t place);

  /// Of training, where the key is shared.
  PoissonSampler(const SamplingKey& key, double sample_rate)
      : PoissonSampler(key.key_, sample_rate) {}

  /// The records of step `step`, ascending, out of 0 ... records-1. Record i joins if word i of the
  /// stream {kPoisson, step}, of a stage {kStagePoisson, step, place}, is below floor(sample_rate
  /// 2^64): with a probability that is sample_rate, or less by under 2^-64. The same step draws the
  /// same records. PrivacyError in a forked child, or where the step exceeds 32 bits.
  std::vector<std::int64_t> draw(std::int64_t step, std::int64_t records) const;

  double sample_rate() const { return sample_rate_; }

 private:
  PoissonSampler(const SecureKey& key, double sample_rate, StreamDomain domain, std::int64_t place);

  const SecureKey& key_;
  double sample_rate_;
  StreamDomain domain_;
  std::int64_t place_;
};

}  // namespace sfumato
