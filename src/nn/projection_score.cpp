#include "sfumato/nn/gan_layers.h"

namespace sfumato {

ProjectionScore::ProjectionScore(int64_t features, int64_t num_classes)
    : linear(features, 1), embedding(num_classes, features), num_classes_(num_classes) {
  add_child("linear", linear);
  if (num_classes > 0) add_child("embedding", embedding);
}

/// Both terms have their per-example rules from their layers; the sum is in float32, as tables are.
at::Tensor ProjectionScore::forward(const at::Tensor& features, const at::Tensor& labels,
                                    Tape* tape) {
  const at::Tensor score = linear.forward(features, tape).squeeze(1).to(at::kFloat);
  if (num_classes_ == 0) return score;
  const at::Tensor rows = embedding.forward(labels, tape);
  return score.add(rows.mul(features.to(at::kFloat)).sum({1}));
}

}  // namespace sfumato
