#include <ATen/ops/ones.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "audit/check_writer.h"
#include "sfumato/audit/conformance.h"
#include "sfumato/core/infinity.h"
#include "sfumato/mechanism/plan.h"

namespace sfumato {
namespace {

using Gradient = std::vector<at::Tensor>;
using Examples = std::vector<ProbeExample>;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
/// Largest distance between two float32 ways to the same sum, in clip norms an example.
constexpr double kRounding = 1e-3;

class GradientChecks {
 public:
  GradientChecks(MechanismUnderTest& mechanism, ProbeNetwork& network, const MechanismPlan& plan)
      : mechanism_(mechanism), network_(network), clip_(clip_options(plan)) {}

  void bounds(CheckWriter& write);
  void draws(CheckWriter& write);
  void neighbours(CheckWriter& write);

 private:
  Gradient sum(const Examples& examples) {
    if (!examples.empty()) mechanism_.accumulate(network_.batch(examples));
    return mechanism_.take_clipped_sum();
  }
  Gradient expected(const Examples& examples) {
    Gradient total;
    for (const ProbeExample& example : examples) {
      const Gradient one = network_.clipped_gradient(example, clip_);
      for (size_t j = 0; j < one.size(); ++j)
        j < total.size() ? total[j].add_(one[j]) : total.emplace_back(one[j].clone());
    }
    return total;
  }
  /// In clip norms.
  double size(const Gradient& g) const { return gradient_norm(g) / clip_.clip_norm_l2; }
  double distance(const Gradient& a, const Gradient& b) const {
    return gradient_distance(a, b) / clip_.clip_norm_l2;
  }
  /// An example of that norm where norms can be made, else one with its pixels scaled.
  ProbeExample example(uint64_t key, double norm) {
    return network_.scales_gradients() ? network_.with_norm(key, norm * clip_.clip_norm_l2)
                                       : ProbeExample{key, 1};
  }
  void norm_of(CheckWriter& write, double norm);
  void poisoned(CheckWriter& write, double poison);

  MechanismUnderTest& mechanism_;
  ProbeNetwork& network_;
  ClipOptions clip_;
};

/// One example by itself, whose gradient has (or whose pixels are scaled by) `norm`.
void GradientChecks::norm_of(CheckWriter& write, double norm) {
  const bool scales = network_.scales_gradients();
  const Examples one{scales ? network_.with_norm(1, norm) : ProbeExample{1, norm}};
  const Gradient got = sum(one);
  const std::string what =
      fmt::format("{} {:g}", scales ? "gradient of norm" : "pixels times", norm);
  write.at_most(what + ": contribution over C", size(got), 1 + kNormMargin);
  if (!scales) return;
  // Where the factor is a subnormal float only a few of its bits are left.
  write.at_most(what + ": distance to its definition over C", distance(got, expected(one)),
                norm > 1e20 ? 0.05 : kRounding);
}

void GradientChecks::poisoned(CheckWriter& write, double poison) {
  const Examples healthy{example(1, 0.5), example(2, 5)};
  Examples all = healthy;
  all.insert(all.begin() + 1, ProbeExample{3, poison});
  const Gradient with = sum(all), without = sum(healthy);
  write.at_most(fmt::format("an example that is {}: change of the sum over C",
                            std::isnan(poison) ? "NaN" : "infinite"),
                distance(with, without), 1e-5);
}

void GradientChecks::bounds(CheckWriter& write) {
  for (const double norm : {0.0, 1e-30, 1e30}) norm_of(write, norm);
  if (network_.scales_gradients()) {
    for (const double norm : {0.5, 1.0, 1000.0}) norm_of(write, norm * clip_.clip_norm_l2);
  } else {
    norm_of(write, 1);
  }
  for (const double poison : {kNaN, kInfinity}) poisoned(write, poison);
  write.at_most("empty batch: norm of the sum over C", size(sum({})), 0);
}

void GradientChecks::draws(CheckWriter& write) {
  const Examples batch{example(11, 20), example(12, 3), example(13, 0.3), example(14, 20)};
  const double count = static_cast<double>(batch.size());
  const Gradient together = sum(batch);
  write.at_most("sum of means over draws, each clipped once: distance over C",
                distance(together, expected(batch)), count * kRounding);
  // The same logical batch in other physical batches, one of them padded.
  mechanism_.accumulate(network_.batch({batch.data(), 1}));
  Examples padded(batch.begin() + 1, batch.end());
  padded.push_back(example(15, 100));
  ProbeBatch rest = network_.batch(padded);
  rest.mask = at::ones({4});
  rest.mask.mutable_data_ptr<float>()[3] = 0;
  mechanism_.accumulate(rest);
  write.at_most("other physical batches and padding: distance over C",
                distance(mechanism_.take_clipped_sum(), together), count * kRounding);
}

void GradientChecks::neighbours(CheckWriter& write) {
  const int rounds = network_.scales_gradients() ? 8 : 2;
  double farthest = 0, mixed = 0;
  for (int round = 0; round < rounds; ++round) {
    Examples batch;
    for (int i = 0; i < 5; ++i)
      batch.push_back(example(static_cast<uint64_t>(100 + 10 * round + i),
                              std::pow(10.0, (round + 2 * i) % 7 - 3)));
    const ProbeExample leaver = batch[static_cast<size_t>(round % 5)];
    Examples rest = batch;
    rest.erase(rest.begin() + round % 5);
    const Gradient with = sum(batch), without = sum(rest);
    Gradient difference;
    for (size_t j = 0; j < with.size(); ++j)
      difference.push_back(with[j].to(at::kDouble).sub(without[j].to(at::kDouble)));
    const Gradient own = network_.clipped_gradient(leaver, clip_);
    // NaN must not hide behind max.
    farthest = std::isnan(farthest) ? farthest : std::max(size(difference), farthest);
    mixed = std::isnan(mixed) ? mixed : std::max(distance(difference, own), mixed);
  }
  write.at_most("one record less: change of the sum over C", farthest, 1 + kNormMargin);
  write.at_most("beyond that record's own gradient: change over C", mixed, 5 * kRounding);
  const int copies = network_.scales_gradients() ? 16 : 4;
  const Examples same(static_cast<size_t>(copies), example(7, 50));
  write.at_most(fmt::format("{0} equal records: norm of the sum over {0} C", copies),
                size(sum(same)) / copies, 1 + kNormMargin);
}

}  // namespace

void ConformanceAudit::check_gradients(MechanismUnderTest& mechanism, ProbeNetwork& network,
                                       const std::string& subject) {
  GradientChecks checks(mechanism, network, plan_);
  CheckWriter bound(*this, subject, "bound"), draws(*this, subject, "draws"),
      neighbours(*this, subject, "neighbours");
  checks.bounds(bound);
  checks.draws(draws);
  checks.neighbours(neighbours);
}

}  // namespace sfumato
