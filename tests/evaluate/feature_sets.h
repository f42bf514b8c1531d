#pragma once
#include <ATen/core/Tensor.h>

#include "sfumato/evaluate/feature_set.h"

namespace sfumato::test {

/// Features of a network of the tests' own.
inline FeatureSet set_of(const at::Tensor& features, const at::Tensor& logits = {}) {
  FeatureFacts facts;
  facts.network = facts.distance = "test";
  facts.dimension = features.size(1);
  return {facts, features.to(at::kFloat), logits};
}

}  // namespace sfumato::test
