#include <ATen/ops/equal.h>
#include <ATen/ops/ne.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "audit/check_writer.h"
#include "sfumato/audit/clipped_sum_inspector.h"
#include "sfumato/audit/conformance.h"
#include "sfumato/grad/parameter_slices.h"
#include "sfumato/mechanism/plan.h"
#include "sfumato/train/gradient_step.h"
#include "sfumato/train/physical_batch.h"

namespace sfumato {
namespace {

using Gradient = std::vector<at::Tensor>;

/// Noise of a rank that is looked at, at least, and in how many releases at most.
constexpr int64_t kNoiseOfARank = 100'000, kMostSteps = 64;
constexpr int64_t kSamples = 8, kRecords = 997;

/// Elements of `a` that have other bits than those of `b`; all of them where the sizes differ.
int64_t other_bits(const Gradient& a, const Gradient& b) {
  int64_t count = 0;
  for (size_t j = 0; j < a.size(); ++j) {
    const auto bits = [](const at::Tensor& tensor) {
      return tensor.to(at::kFloat).contiguous().view(at::kInt);
    };
    count += a[j].sizes() == b[j].sizes() ? at::ne(bits(a[j]), bits(b[j])).sum().item<int64_t>()
                                          : a[j].numel();
  }
  return count;
}

/// Checks of what ranks do together. What a rank finds for itself is added up over all, so that
/// every rank writes the same report.
class RankChecks {
 public:
  RankChecks(MechanismUnderTest& mechanism, ProbeNetwork& network, const MechanismPlan& plan)
      : mechanism_(mechanism),
        network_(network),
        plan_(plan),
        slices_(*mechanism.slices()),
        ranks_(slices_.ranks()) {}

  void samples(CheckWriter& write);
  void sums(CheckWriter& write);
  void releases(CheckWriter& write);

 private:
  int64_t of_all(int64_t count) {
    int64_t sum = 0;
    for (const int64_t one : ranks_.gather(count)) sum += one;
    return sum;
  }
  double of_all_ranks(int64_t count) { return static_cast<double>(of_all(count)); }
  Gradient sum_of_one_process(std::span<const ProbeExample> examples);
  int64_t unlike_the_first(const Gradient& released);
  void learn_places(const Gradient& released);
  std::vector<float> noise_of(int64_t rank, const Gradient& released) const;

  MechanismUnderTest& mechanism_;
  ProbeNetwork& network_;
  const MechanismPlan& plan_;
  const ParameterSlices& slices_;
  Communicator& ranks_;
  at::Tensor places_;  ///< int64 [ranks, tensors, 2]: first element and count of what a rank owns
};

/// Every record of a step's sample is on one rank, whatever the physical batch, and all ranks draw
/// the same sample.
void RankChecks::samples(CheckWriter& write) {
  int64_t unlike = 0, misplaced = 0;
  for (int64_t step = 0; step < kSamples; ++step) {
    const std::vector<int64_t> sample = mechanism_.sample(step, kRecords);
    const at::Tensor drawn = at::zeros({kRecords}, at::kLong);
    const at::Tensor taken = at::zeros({kRecords}, at::kLong);
    for (const int64_t record : sample) ++drawn.mutable_data_ptr<int64_t>()[record];
    for (const int64_t record : mechanism_.share(sample, /*physical=*/1 + step % 4))
      ++taken.mutable_data_ptr<int64_t>()[record];
    at::Tensor of_first = drawn.clone();
    ranks_.broadcast({of_first}, /*from=*/0);
    unlike += at::ne(drawn, of_first).sum().item<int64_t>();
    ranks_.all_reduce_sum({taken});
    misplaced += at::ne(taken, of_first).sum().item<int64_t>();
  }
  write.at_most("records that ranks draw unlike", of_all_ranks(unlike), 0);
  write.at_most("drawn records on no rank, or on several", of_all_ranks(misplaced), 0);
}

/// Of the same physical batches, one after the other.
Gradient RankChecks::sum_of_one_process(std::span<const ProbeExample> examples) {
  const GradientSource alone = network_.alone();
  std::vector<int64_t> numbers;
  for (int64_t i = 0; i < std::ssize(examples); ++i) numbers.push_back(i);
  for (int64_t rank = 0; rank < ranks_.size(); ++rank) {
    const auto own = share_of_rank(numbers, 1, rank, ranks_.size());
    if (own.empty()) continue;
    alone.accumulate(network_.batch(
        examples.subspan(static_cast<size_t>(own.front()), static_cast<size_t>(own.size()))));
  }
  const ClippedSum sum = alone.step->take_private();
  return ClippedSumInspector::sums(sum);
}

/// The sum of all ranks is that of one process to the bit, with a rank that has nothing too.
void RankChecks::sums(CheckWriter& write) {
  int64_t differing = 0;
  for (const int64_t count : {int64_t{1}, ranks_.size() + 2, 3 * ranks_.size()}) {
    std::vector<ProbeExample> examples;
    for (int64_t i = 0; i < count; ++i) {
      const auto key = static_cast<uint64_t>(300 + i);
      examples.push_back(
          network_.scales_gradients()
              ? network_.with_norm(key, plan_.clip_norm_l2 * std::pow(10.0, i % 4 - 1))
              : ProbeExample{key, 1});
    }
    mechanism_.accumulate(network_.batch(examples));
    differing += other_bits(mechanism_.take_clipped_sum(), sum_of_one_process(examples));
  }
  write.at_most("elements of the sum with other bits than one process's", of_all_ranks(differing),
                0);
}

int64_t RankChecks::unlike_the_first(const Gradient& released) {
  Gradient of_first;
  for (const at::Tensor& tensor : released) {
    of_first.push_back(tensor.detach().clone(at::MemoryFormat::Contiguous));
    ranks_.broadcast({of_first.back()}, /*from=*/0);
  }
  return other_bits(released, of_first);
}

void RankChecks::learn_places(const Gradient& released) {
  const auto tensors = std::ssize(released);
  places_ = at::zeros({ranks_.size(), tensors, 2}, at::kLong);
  int64_t* own = places_.mutable_data_ptr<int64_t>() + ranks_.rank() * tensors * 2;
  for (size_t j = 0; j < released.size(); ++j) {
    const ParameterSlices::Part part = slices_.part(j);
    *own++ = part.begin;
    *own++ = part.count;
  }
  ranks_.all_reduce_sum({places_});
}

/// Of the part that a rank owns, in units of the claimed noise. Of an empty batch.
std::vector<float> RankChecks::noise_of(int64_t rank, const Gradient& released) const {
  const double unit =
      noise_stddev(plan_.noise_multiplier, plan_.clip_norm_l2, plan_.expected_batch_size) /
      plan_.expected_batch_size;
  const int64_t* place = places_.const_data_ptr<int64_t>() + rank * std::ssize(released) * 2;
  std::vector<float> noise;
  for (const at::Tensor& tensor : released) {
    const at::Tensor flat = tensor.to(at::kDouble).div(unit).to(at::kFloat).contiguous();
    const float* first = flat.const_data_ptr<float>() + place[0];
    noise.insert(noise.end(), first, first + place[1]);
    place += 2;
  }
  return noise;
}

/// Empty batches, so that what reaches the weights is noise: the same on all ranks, in the part of
/// each as much as claimed, and none of it that of another rank.
void RankChecks::releases(CheckWriter& write) {
  const int64_t size = ranks_.size(), before = mechanism_.charges();
  const int64_t steps = std::clamp<int64_t>(
      kNoiseOfARank * size / std::max<int64_t>(1, slices_.elements()) + 1, 4, kMostSteps);
  int64_t unlike = 0;
  std::vector<double> squares(static_cast<size_t>(size), 0), counts(squares);
  std::vector<double> products(static_cast<size_t>(size * size), 0);
  std::vector<int64_t> pairs(products.size(), 0);
  for (int64_t step = 0; step < steps; ++step) {
    const Gradient released = mechanism_.release(step);
    if (step == 0) learn_places(released);
    unlike += unlike_the_first(released);
    std::vector<std::vector<float>> noise;
    for (int64_t rank = 0; rank < size; ++rank) noise.push_back(noise_of(rank, released));
    for (size_t a = 0; a < noise.size(); ++a) {
      for (const float v : noise[a]) squares[a] += static_cast<double>(v) * static_cast<double>(v);
      counts[a] += static_cast<double>(noise[a].size());
      for (size_t b = 0; b < a; ++b) {
        const size_t pair = a * noise.size() + b,
                     common = std::min(noise[a].size(), noise[b].size());
        for (size_t i = 0; i < common; ++i)
          products[pair] += static_cast<double>(noise[a][i]) * static_cast<double>(noise[b][i]);
        pairs[pair] += static_cast<int64_t>(common);
      }
    }
  }
  write.at_most("elements of the weights that differ between ranks", of_all_ranks(unlike), 0);
  write.at_most("releases not charged once, whatever the ranks",
                std::abs(static_cast<double>(mechanism_.charges() - before - steps)), 0);
  double worst = 1, statistic = 1;
  for (size_t a = 0; a < squares.size(); ++a) {
    if (counts[a] == 0) continue;  // more ranks than groups of weights
    const double p = chi_square_p_value(squares[a], counts[a]);
    if (!(p > worst)) worst = p, statistic = squares[a] / counts[a];
  }
  write.statistical("variance over (sigma C)^2 of the most unusual rank", statistic, worst,
                    static_cast<double>(size));
  double least = 1, correlation = 0;
  for (size_t pair = 0; pair < products.size(); ++pair) {
    if (pairs[pair] == 0) continue;
    const double p = product_sum_p_value(products[pair], pairs[pair]);
    if (!(p > least)) least = p, correlation = products[pair] / static_cast<double>(pairs[pair]);
  }
  write.statistical("correlation of the noise of the most alike two ranks", correlation, least,
                    static_cast<double>(size * (size - 1)) / 2);
}

}  // namespace

void ConformanceAudit::check_ranks(MechanismUnderTest& mechanism, ProbeNetwork& network,
                                   const std::string& subject) {
  if (mechanism.slices() == nullptr) return;
  ranks_ = mechanism.slices()->ranks().size();
  CheckWriter write(*this, subject, "ranks");
  RankChecks checks(mechanism, network, plan_);
  mechanism.resume();  // steps from 0 on again
  checks.samples(write);
  checks.sums(write);
  checks.releases(write);
}

}  // namespace sfumato
