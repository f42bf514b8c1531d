#include <algorithm>
#include <cmath>
#include <vector>

#include "audit/check_writer.h"
#include "audit/noise_statistics.h"
#include "sfumato/audit/conformance.h"
#include "sfumato/mechanism/plan.h"

namespace sfumato {
namespace {

using Gradient = std::vector<at::Tensor>;
using Examples = std::vector<ProbeExample>;

/// Coordinates of one tensor that are looked at: its first and its last ones.
constexpr int64_t kMostOfATensor = 16384;
constexpr int64_t kResumedSteps = 4;

/// A batch whose clipped sum is known without the engine.
struct KnownBatch {
  Examples examples;
  Gradient sum;
};

class ReleaseChecks {
 public:
  ReleaseChecks(MechanismUnderTest& mechanism, ProbeNetwork& network, const MechanismPlan& plan)
      : mechanism_(mechanism), network_(network), plan_(plan), clip_(clip_options(plan)) {}

  void noise(CheckWriter& write, int64_t least_coordinates);
  void divisor(CheckWriter& write);

 private:
  KnownBatch known(int64_t examples, uint64_t first_key);
  Gradient one_release(const Examples& examples) {
    if (!examples.empty()) mechanism_.accumulate(network_.batch(examples));
    return mechanism_.release(step_++);
  }
  std::vector<float> standardised(const Gradient& released, const Gradient& known_sum) const;

  MechanismUnderTest& mechanism_;
  ProbeNetwork& network_;
  const MechanismPlan& plan_;
  ClipOptions clip_;
  int64_t step_ = 0;
};

int64_t looked_at(const at::Tensor& tensor) { return std::min(tensor.numel(), kMostOfATensor); }

/// The first and the last coordinates of a tensor, half each where it is long.
at::Tensor ends(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.to(at::kDouble).contiguous().view({-1});
  if (flat.numel() <= kMostOfATensor) return flat;
  const at::Tensor both = flat.narrow(0, 0, kMostOfATensor).clone();
  both.narrow(0, kMostOfATensor / 2, kMostOfATensor / 2)
      .copy_(flat.narrow(0, flat.numel() - kMostOfATensor / 2, kMostOfATensor / 2));
  return both;
}

KnownBatch ReleaseChecks::known(int64_t examples, uint64_t first_key) {
  KnownBatch batch;
  for (int64_t i = 0; i < examples; ++i) {
    const uint64_t key = first_key + static_cast<uint64_t>(i);
    batch.examples.push_back(network_.scales_gradients()
                                 ? network_.with_norm(key, 10 * plan_.clip_norm_l2)
                                 : ProbeExample{key, 1});
    const Gradient one = network_.clipped_gradient(batch.examples.back(), clip_);
    for (size_t j = 0; j < one.size(); ++j)
      j < batch.sum.size() ? batch.sum[j].add_(one[j]) : batch.sum.emplace_back(one[j].clone());
  }
  return batch;
}

std::vector<float> ReleaseChecks::standardised(const Gradient& released,
                                               const Gradient& known_sum) const {
  const double stddev =
      noise_stddev(plan_.noise_multiplier, plan_.clip_norm_l2, plan_.expected_batch_size);
  std::vector<float> all;
  for (size_t j = 0; j < released.size(); ++j) {
    at::Tensor noise = ends(released[j]).mul(plan_.expected_batch_size);
    if (!known_sum.empty()) noise = noise.sub(ends(known_sum[j]));
    const at::Tensor standard = noise.div(stddev).to(at::kFloat).contiguous();
    const float* data = standard.const_data_ptr<float>();
    all.insert(all.end(), data, data + standard.numel());
  }
  return all;
}

void ReleaseChecks::noise(CheckWriter& write, int64_t least_coordinates) {
  const KnownBatch batches[] = {{}, known(1, 40), {}, known(3, 50)};
  const auto take = [&](int64_t t) -> const KnownBatch& { return batches[t % 4]; };
  const int64_t before = mechanism_.charges();
  const Gradient first = one_release(take(0).examples);
  std::vector<int64_t> sizes;
  for (const at::Tensor& tensor : first) sizes.push_back(looked_at(tensor));
  NoiseSample sample(sizes);
  sample.add_step(standardised(first, take(0).sum), true);
  const int64_t steps = std::clamp<int64_t>(
      least_coordinates / std::max<int64_t>(1, sample.coordinates()) + 1, 8, 512);
  for (int64_t t = 1; t < steps; ++t)
    sample.add_step(standardised(one_release(take(t).examples), take(t).sum),
                    take(t).examples.empty());
  const double charged = static_cast<double>(mechanism_.charges() - before);
  write.at_most("releases not charged, or charged twice",
                std::abs(charged - static_cast<double>(steps)), 0);
  // The reference noise is the program's own figure: sigma C and a margin for rounding, never less.
  const double asked =
      noise_stddev(plan_.noise_multiplier, plan_.clip_norm_l2, plan_.expected_batch_size) /
      (plan_.noise_multiplier * plan_.clip_norm_l2);
  write.at_most("noise asked for, short of sigma C", std::max(0.0, 1 - asked), 0);
  sample.start_second_session();
  mechanism_.resume();
  step_ = 0;
  for (int64_t t = 0; t < kResumedSteps; ++t)
    sample.add_step(standardised(one_release({}), {}), true);
  sample.check(write);
}

/// Batches far from the expected size, all of one direction: what reaches the weights, times the
/// expected batch, is the sum and not a mean.
void ReleaseChecks::divisor(CheckWriter& write) {
  const double sigma = plan_.noise_multiplier, expected = plan_.expected_batch_size;
  // A whole network is given one example: its noise shows a wrong divisor as well.
  const bool one_is_enough = expected > 20 * sigma + 1 || !network_.scales_gradients();
  const auto size =
      static_cast<int64_t>(one_is_enough ? 1 : std::min(512.0, std::ceil(expected + 20 * sigma)));
  const KnownBatch one = known(1, 77);
  const Examples same(static_cast<size_t>(size), one.examples.front());
  const double norm = gradient_norm(one.sum);
  const int64_t before = mechanism_.charges();
  double sum = 0;
  constexpr int kReleases = 4;
  for (int i = 0; i < kReleases; ++i) {
    const Gradient released = one_release(same);
    sum += gradient_dot(released, one.sum) / norm * expected;
  }
  const double mean = sum / kReleases, count = static_cast<double>(size);
  const double stddev =
      noise_stddev(sigma, plan_.clip_norm_l2, expected) / std::sqrt(static_cast<double>(kReleases));
  write.statistical("weight of one example times the expected batch", mean / (count * norm),
                    normal_p_value((mean - count * norm) / stddev));
  write.at_most("releases not charged, or charged twice",
                std::abs(static_cast<double>(mechanism_.charges() - before) - kReleases), 0);
}

}  // namespace

void ConformanceAudit::check_release(MechanismUnderTest& mechanism, ProbeNetwork& network,
                                     const std::string& subject) {
  ReleaseChecks checks(mechanism, network, plan_);
  CheckWriter noise(*this, subject, "noise"), divisor(*this, subject, "divisor");
  checks.noise(noise, options_.noise_coordinates);
  checks.divisor(divisor);
}

}  // namespace sfumato
