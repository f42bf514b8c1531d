#include "sfumato/mechanism/clipped_features.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/matmul.h>
#include <fmt/format.h>

#include <cmath>
#include <utility>

#include "sfumato/core/error.h"
#include "sfumato/generate/seeded_streams.h"

namespace sfumato {
namespace {

/// Orthonormal directions, evenly distributed: the Q of a matrix of normals.
at::Tensor random_projection(std::int64_t from, std::int64_t to) {
  const at::Tensor normals = at::empty({from, to}, at::kFloat);
  SeededStreams("sfumato projected features 1", 0)
      .normals(normals.mutable_data_ptr<float>(), normals.numel(), 0, 0);
  return std::get<0>(at::linalg_qr(normals.to(at::kDouble)));
}

at::Tensor norms_of(const at::Tensor& rows) { return rows.square().sum(1, true).sqrt(); }

}  // namespace

ClippedFeatures::ClippedFeatures(std::unique_ptr<FeatureNetwork> network, const at::Tensor& corpus,
                                 std::int64_t dimension)
    : network_(std::move(network)) {
  const FeatureFacts& facts = network_->facts();
  if (facts.learnt_from_reference)
    throw PrivacyError(fmt::format(
        "the weights of features '{}' follow from real images: by them one image would move what "
        "is released of all others; name features whose weights are public",
        facts.network));
  if (dimension < 1) throw UsageError("features in no dimension cannot be compared");
  if (dimension < facts.dimension) projection_ = random_projection(facts.dimension, dimension);
  const at::Tensor rows = projected(features_of(*network_, corpus).features);
  centre_ = rows.mean(0);
  radius_ = kRadius * std::sqrt((rows - centre_).square().sum(1).mean().item<double>());
  if (!(radius_ > 0))
    throw DataError(fmt::format(
        "all images of the corpus have the same features '{}': there is nothing to measure a "
        "distance by",
        facts.network));
  corpus_ = in_ball(rows);
  corpus_clipped_ =
      (norms_of((rows - centre_) / radius_) > 1).to(at::kDouble).mean().item<double>();
}

at::Tensor ClippedFeatures::projected(const at::Tensor& features) const {
  const at::Tensor rows = features.to(at::kDouble);
  return projection_.defined() ? at::matmul(rows, projection_) : rows;
}

at::Tensor ClippedFeatures::in_ball(const at::Tensor& projected) const {
  const at::Tensor rows = (projected - centre_) / radius_;
  return rows / norms_of(rows).clamp_min(1);
}

at::Tensor ClippedFeatures::operator()(const at::Tensor& features) const {
  return in_ball(projected(features));
}

}  // namespace sfumato
