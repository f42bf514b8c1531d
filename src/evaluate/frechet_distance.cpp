#include "sfumato/evaluate/frechet_distance.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linalg_cholesky_ex.h>
#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/linalg_eigvalsh.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "sfumato/core/error.h"
#include "sfumato/core/stop_signal.h"

namespace sfumato {
namespace {

constexpr int64_t kRowsOfBlock = 1024;

/// Sum of the roots of the eigenvalues of a positive semi-definite matrix, whose lower half is
/// read. Never interrupted: where a charge has paid for one side the number must come.
double root_trace(const at::Tensor& matrix) {
  return at::linalg_eigvalsh(matrix).clamp_min_(0).sqrt_().sum().item<double>();
}

/// tr (S1 S2)^1/2 with S1 = F' F: the roots of the eigenvalues of F S2 F'. Matrices are given up as
/// soon as they were used: each is as large as a covariance.
double root_trace_by(at::Tensor factor, const FrechetStatistics& other) {
  at::Tensor product =
      at::matmul(factor, other.factor.defined() ? other.factor.t() : other.covariance);
  if (!other.factor.defined())
    product = at::matmul(product, factor.t());
  else if (product.size(0) < product.size(1))
    product = at::matmul(product, product.t());
  else
    product = at::matmul(product.t(), product);
  factor.reset();
  return root_trace(product);
}

/// L' of S = L L', or nothing where S is singular.
at::Tensor cholesky_factor(const FrechetStatistics& statistics) {
  const auto [factor, defect] = at::linalg_cholesky_ex(statistics.covariance, true);
  return defect.item<int>() == 0 ? factor : at::Tensor();
}

at::Tensor symmetric_root(const at::Tensor& matrix) {
  const auto [values, vectors] = at::linalg_eigh(matrix);
  return at::matmul(vectors * values.clamp_min(0).sqrt(), vectors.t());
}

double root_trace_of_product(const FrechetStatistics& a, const FrechetStatistics& b) {
  if (a.factor.defined()) return root_trace_by(a.factor, b);
  if (b.factor.defined()) return root_trace_by(b.factor, a);
  at::Tensor factor = cholesky_factor(a);
  if (factor.defined()) return root_trace_by(std::move(factor), b);
  factor = cholesky_factor(b);
  if (factor.defined()) return root_trace_by(std::move(factor), a);
  return root_trace_by(symmetric_root(a.covariance), b);
}

double trace(const FrechetStatistics& statistics) {
  return statistics.factor.defined() ? statistics.factor.square().sum().item<double>()
                                     : statistics.covariance.diagonal().sum().item<double>();
}

FeatureSet rows_of(const FeatureSet& set, const at::Tensor& labels, int64_t label) {
  return {set.facts, set.features.index_select(0, (labels == label).nonzero().flatten()), {}};
}

}  // namespace

FrechetStatistics frechet_statistics(const FeatureSet& set, const std::string& what) {
  check_features(set, what, 2);
  const int64_t n = set.count(), d = set.dimension();
  const at::Tensor shift =
      set.features.narrow(0, 0, std::min(n, kRowsOfBlock)).to(at::kDouble).mean(0);
  FrechetStatistics out{set.facts, n, {}, {}, {}};
  if (n < d) {
    const at::Tensor rows = set.features.to(at::kDouble).sub_(shift);
    const at::Tensor mean = rows.mean(0);
    out.mean = shift + mean;
    out.factor = (rows - mean).div_(std::sqrt(static_cast<double>(n - 1)));
    return out;
  }
  const at::Tensor sum = at::zeros({d}, at::kDouble);
  out.covariance = at::zeros({d, d}, at::kDouble);
  for (int64_t begin = 0; begin < n; begin += kRowsOfBlock) {
    const at::Tensor rows = set.features.narrow(0, begin, std::min(kRowsOfBlock, n - begin))
                                .to(at::kDouble)
                                .sub_(shift);
    sum.add_(rows.sum(0));
    out.covariance.addmm_(rows.t(), rows);
  }
  const at::Tensor mean = sum / static_cast<double>(n);
  out.mean = shift + mean;
  out.covariance.addr_(sum, mean, 1, -1).div_(static_cast<double>(n - 1));
  return out;
}

double frechet_distance(const FrechetStatistics& a, const FrechetStatistics& b) {
  require_alike(a.facts, b.facts);
  if (a.mean.sizes() != b.mean.sizes())
    throw DataError(fmt::format("features of {} and of {} dimensions are not compared",
                                a.mean.size(0), b.mean.size(0)));
  const double means = (a.mean - b.mean).square().sum().item<double>();
  const double distance = means + trace(a) + trace(b) - 2 * root_trace_of_product(a, b);
  // Of a set and itself what rounding leaves may lie below 0.
  return std::max(distance, 0.0);
}

std::vector<ClassDistance> class_frechet_distances(const FeatureSet& corpus,
                                                   const at::Tensor& corpus_labels,
                                                   const FeatureSet& reference,
                                                   const at::Tensor& reference_labels,
                                                   int64_t num_classes) {
  std::vector<ClassDistance> found;
  for (int64_t label = 0; label < num_classes; ++label) {
    if (stop_requested()) throw Interrupted("stopped; nothing was written");
    const FeatureSet a = rows_of(corpus, corpus_labels, label);
    const FeatureSet b = rows_of(reference, reference_labels, label);
    ClassDistance one{a.count(), b.count(), std::numeric_limits<double>::quiet_NaN(),
                      std::min(a.count(), b.count()) <= a.dimension()};
    if (a.count() > 1 && b.count() > 1) {
      const std::string name = fmt::format("class {} of ", label);
      one.distance = frechet_distance(frechet_statistics(a, name + "the corpus"),
                                      frechet_statistics(b, name + "the reference"));
    }
    found.push_back(one);
  }
  return found;
}

}  // namespace sfumato
