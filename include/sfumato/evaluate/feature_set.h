#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>

#include "sfumato/features/feature_network.h"

namespace sfumato {

/// The features of one set of images, and what makes numbers from them comparable.
struct FeatureSet {
  FeatureFacts facts;
  at::Tensor features;  ///< float32 [N, d], all finite
  at::Tensor logits;    ///< float32 [N, classes]; undefined without

  int64_t count() const { return features.size(0); }
  int64_t dimension() const { return features.size(1); }
};

/// UsageError unless both come from the same network, weights and pre-processing: everything that
/// compares two sets asks first.
void require_alike(const FeatureFacts& a, const FeatureFacts& b);
/// DataError, which calls the set `what`: no matrix, fewer than `least` rows, or values that are
/// not finite.
void check_features(const FeatureSet& set, const std::string& what, int64_t least);

/// A matrix [N, d] of another program: .npy (float32 or float64), or .safetensors with a tensor
/// "features" (or only one) and, if there is one, "logits". The metadata network, weights_sha256
/// and preprocessing of a safetensors file are kept, so that unlike files are refused; an .npy says
/// nothing of itself. DataError names the file.
FeatureSet read_features(const std::filesystem::path& file);

}  // namespace sfumato
