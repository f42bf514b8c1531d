#include "sfumato/evaluate/kernel_distance.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "sfumato/core/error.h"
#include "sfumato/core/stop_signal.h"

namespace sfumato {
namespace {

struct KernelSums {
  double all = 0, diagonal = 0;
};

/// Sums of the kernel's matrix: products in float32, whose rounding averages out over a million of
/// them; powers and sums in double, since what is left of the sums is small.
KernelSums kernel_sums(const at::Tensor& x, const at::Tensor& y) {
  const at::Tensor root =
      at::matmul(x, y.t()).to(at::kDouble).div_(static_cast<double>(x.size(1))).add_(1);
  const at::Tensor kernel = root.square().mul_(root);
  return {kernel.sum().item<double>(), kernel.diagonal().sum().item<double>()};
}

double unbiased_mmd(const at::Tensor& x, const at::Tensor& y) {
  const auto m = static_cast<double>(x.size(0));
  const KernelSums xx = kernel_sums(x, x), yy = kernel_sums(y, y);
  return (xx.all - xx.diagonal + yy.all - yy.diagonal) / (m * (m - 1)) -
         2 * kernel_sums(x, y).all / (m * m);
}

at::Tensor chosen_rows(const at::Tensor& rows, const std::vector<int64_t>& indices) {
  return rows.index_select(0, at::tensor(indices, at::kLong));
}

/// Mean and standard deviation as numpy.mean and numpy.std give them.
std::pair<double, double> mean_and_std(const std::vector<double>& values) {
  double mean = 0, square = 0;
  for (const double value : values) mean += value;
  mean /= static_cast<double>(values.size());
  for (const double value : values) square += (value - mean) * (value - mean);
  return {mean, std::sqrt(square / static_cast<double>(values.size()))};
}

}  // namespace

KernelDistance kernel_distance(const FeatureSet& corpus, const FeatureSet& reference,
                               KernelOptions options) {
  require_alike(corpus.facts, reference.facts);
  check_features(corpus, "the corpus", 2);
  check_features(reference, "the reference", 2);
  if (options.subsets < 1 || options.subset_size < 2)
    throw UsageError("a kernel distance takes one subset or more, of two images or more");
  const int64_t size = std::min({options.subset_size, corpus.count(), reference.count()});
  NumpyRandom random(options.seed);
  std::vector<double> estimates;
  for (int64_t i = 0; i < options.subsets; ++i) {
    if (stop_requested()) throw Interrupted("stopped; nothing was written");
    const at::Tensor x = chosen_rows(corpus.features, random.choice(corpus.count(), size));
    const at::Tensor y = chosen_rows(reference.features, random.choice(reference.count(), size));
    estimates.push_back(unbiased_mmd(x, y));
  }
  const auto [mean, std] = mean_and_std(estimates);
  return {mean, std, options.subsets, size};
}

InceptionScore inception_score(const FeatureSet& corpus, int64_t splits, uint32_t seed) {
  if (!corpus.logits.defined())
    throw DataError(
        fmt::format("an Inception Score needs the logits of classes, and '{}' gives none",
                    corpus.facts.network));
  const int64_t n = corpus.count();
  check_features(corpus, "the corpus", splits);
  if (splits < 1) throw UsageError("an Inception Score takes one split or more");
  const at::Tensor logits =
      chosen_rows(corpus.logits, NumpyRandom(seed).permutation(n)).to(at::kDouble);
  std::vector<double> scores;
  for (int64_t i = 0; i < splits; ++i) {
    const int64_t begin = i * n / splits, end = (i + 1) * n / splits;
    const at::Tensor log_p = at::log_softmax(logits.narrow(0, begin, end - begin), 1);
    const at::Tensor p = log_p.exp();
    // A class that no image of the split has at all adds nothing.
    const at::Tensor log_mean = p.mean(0, true).log().clamp_min(-1e300);
    scores.push_back(std::exp((p * (log_p - log_mean)).sum(1).mean().item<double>()));
  }
  const auto [mean, std] = mean_and_std(scores);
  return {mean, std, splits};
}

}  // namespace sfumato
