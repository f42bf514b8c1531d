#include "sfumato/corpus/candidate_choice.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_cholesky.h>
#include <ATen/ops/linalg_solve_triangular.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "sfumato/core/error.h"

namespace sfumato {
namespace {

/// Of the mean variance of a direction, added to all: few candidates know little of the directions
/// in which they hardly vary, where the noise of the means would count the most. Chosen on MNIST,
/// where a third to three times it is as good (docs/utility.md).
constexpr double kRidge = 0.3;
constexpr double kLeastRidge = 1e-9;

/// A matrix W with W Wᵀ = (scatter of `rows` within classes + ridge)⁻¹: rows times it are
/// distances.
at::Tensor whitening(const at::Tensor& rows, std::span<const std::vector<int64_t>> members) {
  const int64_t dimension = rows.size(1);
  at::Tensor scatter = at::zeros({dimension, dimension}, at::kDouble);
  for (const std::vector<int64_t>& own : members) {
    if (own.empty()) continue;
    const at::Tensor part = rows.index_select(0, at::tensor(own, at::kLong));
    const at::Tensor centred = part - part.mean(0, true);
    scatter += at::matmul(centred.t(), centred);
  }
  scatter /= static_cast<double>(rows.size(0));
  const double ridge = std::max(
      kRidge * scatter.trace().item<double>() / static_cast<double>(dimension), kLeastRidge);
  scatter.diagonal().add_(ridge);
  const at::Tensor lower = at::linalg_cholesky(scatter);
  return at::linalg_solve_triangular(lower, at::eye(dimension, at::kDouble), /*upper=*/false).t();
}

/// By how much each row's score of class `label` is above that of the best other one; positive
/// where there is one class.
std::vector<double> margins(const at::Tensor& scores, int64_t label) {
  std::vector<double> found(static_cast<size_t>(scores.size(0)), 1.0);
  if (scores.size(1) == 1) return found;
  const at::Tensor dense = scores.contiguous();
  const double* score = dense.const_data_ptr<double>();
  for (double& margin : found) {
    double other = -std::numeric_limits<double>::infinity();
    for (int64_t c = 0; c < scores.size(1); ++c)
      if (c != label) other = std::max(other, score[c]);
    margin = score[label] - other;
    score += scores.size(1);
  }
  return found;
}

/// [n, classes]: by how much nearer a row is to a mean than another one is half of the difference.
at::Tensor nearness(const at::Tensor& rows, const at::Tensor& means) {
  return at::matmul(rows, means.t()) - means.square().sum(1) / 2;
}

/// Of positions in a class those that may be taken: whose margin is positive or, where those are
/// fewer than `wanted`, the `wanted` with the largest. In order.
std::vector<int64_t> eligible(std::span<const double> margin, int64_t wanted) {
  std::vector<int64_t> order(margin.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  std::ranges::stable_sort(order, std::greater<>(),
                           [&](int64_t i) { return margin[static_cast<size_t>(i)]; });
  const int64_t right = std::ranges::count_if(margin, [](double value) { return value > 0; });
  order.resize(static_cast<size_t>(std::max(right, wanted)));
  std::ranges::sort(order);
  return order;
}

/// Positions of `wanted` of `rows` whose running mean stays nearest to `target`.
std::vector<int64_t> herd(const at::Tensor& rows, const at::Tensor& target, int64_t wanted) {
  // With s the sum of the j taken so far and d = s - (j + 1) target, the next one minimises
  // |d + x|^2 = |d|^2 + 2 <d, x> + |x|^2.
  const at::Tensor squares = rows.square().sum(1);
  const double* square = squares.const_data_ptr<double>();
  at::Tensor behind = -target;
  std::vector<bool> taken(static_cast<size_t>(rows.size(0)));
  std::vector<int64_t> chosen;
  while (std::ssize(chosen) < wanted) {
    const at::Tensor products = at::matmul(rows, behind);
    const double* product = products.const_data_ptr<double>();
    int64_t best = -1;
    for (int64_t i = 0; i < rows.size(0); ++i) {
      if (taken[static_cast<size_t>(i)]) continue;
      if (best < 0 || 2 * product[i] + square[i] < 2 * product[best] + square[best]) best = i;
    }
    taken[static_cast<size_t>(best)] = true;
    chosen.push_back(best);
    behind += rows[best] - target;
  }
  return chosen;
}

}  // namespace

CandidateChoice::CandidateChoice(FeatureMeans means, std::unique_ptr<FeatureNetwork> network,
                                 std::optional<FeatureClassifier> classifier)
    : means_(std::move(means)), classifier_(std::move(classifier)), network_(std::move(network)) {
  const auto check = [&](const char* what, const std::string& features, const std::string& weights,
                         int64_t dimension) {
    const FeatureFacts& facts = network_->facts();
    if (features != facts.network || weights != facts.weights_sha256)
      throw UsageError(fmt::format(
          "sample.candidates: the released {} by the features '{}' of weights {}, and those here "
          "are '{}' of weights {}; use the program that trained, or set sample.candidates=1",
          what, features, weights, facts.network, facts.weights_sha256));
    if (dimension != facts.dimension)
      throw UsageError(
          fmt::format("sample.candidates: the released {} of {} numbers for each class, and an "
                      "image of this size has {}: of other images, set sample.candidates=1",
                      what, dimension, facts.dimension));
  };
  check("means are", means_.features, means_.features_weights, means_.means.size(1));
  if (!classifier_) return;
  check("classifier is", classifier_->features, classifier_->features_weights,
        classifier_->weights.size(1));
  if (classifier_->weights.size(0) != num_classes())
    throw UsageError(fmt::format(
        "sample.candidates: the released classifier tells {} classes apart, and the released means "
        "are of {}; set sample.candidates=1",
        classifier_->weights.size(0), num_classes()));
}

std::vector<std::vector<int64_t>> CandidateChoice::choose(const at::Tensor& candidates,
                                                          std::span<const int64_t> labels,
                                                          int64_t of) const {
  const at::NoGradGuard no_grad;
  std::vector<std::vector<int64_t>> members(static_cast<size_t>(num_classes()));
  for (int64_t i = 0; i < std::ssize(labels); ++i)
    members.at(static_cast<size_t>(labels[static_cast<size_t>(i)])).push_back(i);
  const at::Tensor rows = features_within_unit_norm(features_of(*network_, candidates).features);
  const at::Tensor white = whitening(rows, members);
  const at::Tensor means = at::matmul(means_.means, white);
  std::vector<std::vector<int64_t>> chosen;
  for (int64_t label = 0; label < num_classes(); ++label) {
    const std::vector<int64_t>& own = members[static_cast<size_t>(label)];
    chosen.emplace_back();
    if (own.empty()) continue;
    const int64_t wanted = std::ssize(own) / of;
    const at::Tensor plain = rows.index_select(0, at::tensor(own, at::kLong));
    const at::Tensor mine = at::matmul(plain, white);
    const at::Tensor scores = classifier_ ? classifier_->scores(plain) : nearness(mine, means);
    const std::vector<int64_t> may = eligible(margins(scores, label), wanted);
    const at::Tensor left = mine.index_select(0, at::tensor(may, at::kLong));
    for (const int64_t i : herd(left, means[label], wanted))
      chosen.back().push_back(own[static_cast<size_t>(may[static_cast<size_t>(i)])]);
  }
  return chosen;
}

}  // namespace sfumato
