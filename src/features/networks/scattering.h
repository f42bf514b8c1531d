#pragma once
#include <memory>

#include "sfumato/features/feature_network.h"

namespace sfumato {

/// First-order scattering (Bruna and Mallat 2013, arXiv 1203.1513, equation 9 up to order 1), of
/// images of any size, learnt from nothing and the same on every machine: moduli of the responses
/// of 16 Morlet wavelets (8 directions, 1.6 and 0.8 radians a pixel) on the mean of the channels,
/// averaged over cells of a 7 x 7 grid; the same of the image halved and quartered while its
/// shorter side is 24 pixels or more; and the mean of each channel in each cell. All of them
/// together have unit norm. They keep where things are, which `convolution` blurs: linear
/// classifiers on such features are hard to beat where labels or budgets are few (Tramèr and Boneh
/// 2021).
///
/// Features of an image follow from its own bytes, bit for bit, whatever it is asked with.
std::unique_ptr<FeatureNetwork> make_scattering(const FeatureRequest& request);

}  // namespace sfumato
