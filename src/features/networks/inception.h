#pragma once
#include <memory>

#include "features/networks/layered_network.h"
#include "features/networks/network_weights.h"

namespace sfumato {

/// How images come to 299 pixels.
enum class InceptionResizing {
  kTensorFlow1,  ///< bilinear as in Heusel et al. 2017: the number is called FID
  kClean         ///< as clean-fid: the number is called clean-FID
};

/// Inception v3 of 2015-12-05, by which FID is defined, with weights that the user has converted by
/// scripts/feature-weights; no others are taken. It differs from the published Inception v3 in its
/// pooling: averages leave out the padding, and the last block has a maximum in their place.
/// Features: 2,048 numbers after the last pooling; 1,008 logits without the bias, as the Inception
/// Score has them (Salimans et al. 2016, torch-fidelity).
std::unique_ptr<FeatureNetwork> make_inception(const FeatureRequest& request);
std::unique_ptr<FeatureNetwork> make_clean_inception(const FeatureRequest& request);

/// Those of the file that the request names. Of which original they are only the file itself says
/// (scripts/feature-weights notes it): NetworkWeights::sha256() therefore names the tensors that it
/// holds as well, "SHA-256 of the original, tensors SHA-256". DataError for other files.
NetworkWeights inception_weights(const FeatureRequest& request);

/// With any weights: for tests.
std::unique_ptr<LayeredNetwork> inception_of(const NetworkWeights& weights,
                                             InceptionResizing resizing);

}  // namespace sfumato
