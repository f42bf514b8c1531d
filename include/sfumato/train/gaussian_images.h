#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "sfumato/mechanism/class_gaussians.h"

namespace sfumato {

/// Eigenvalues of a symmetric matrix as they were before symmetric Gaussian noise was added, of
/// standard deviation s off the diagonal: with e = s sqrt(dimension), noise alone has eigenvalues
/// up to 2e, and a larger one of the sum, l, was (l + sqrt(l² - 4e²)) / 2 (the deformed Wigner
/// matrix: Féral and Péché 2007, Capitaine, Donati-Martin and Féral 2009, theorem 2.1). What is not
/// larger than 2e (1 + dimension^(-2/3)), which the largest of noise alone is in one of a hundred
/// matrices (Tracy and Widom), tells nothing and becomes 0. float64, of the shape of `eigenvalues`.
at::Tensor without_noise(const at::Tensor& eigenvalues, double noise_stddev, double dimension);

/// Gaussians of classes with covariances that are ones: what noise does not hide.
struct DenoisedGaussians {
  at::Tensor means;    ///< float64 [classes, C, H, W]
  at::Tensor factors;  ///< float64 [classes, d, r], of coefficients: a covariance is factor factor'
  std::vector<std::int64_t> directions;  ///< told from noise in each class
  std::int64_t shared_directions = 0;    ///< told from noise in all classes together
};

/// The directions that are told from noise are found in two steps: those of the mean covariance of
/// all classes, which has the least noise, and within these those of each class. What varies in a
/// class besides (by the trace) is taken to vary as in all classes together. Post-processing:
/// nothing here is private.
DenoisedGaussians denoise(const ClassGaussians& gaussians);

/// Images of these Gaussians, float32 [count, C, H, W], not limited to [-1, 1]: image i is of class
/// i % classes. Everything follows from the seed.
at::Tensor draw_gaussian_images(const DenoisedGaussians& gaussians, std::int64_t count,
                                std::uint64_t seed);

/// Both, for a configuration.
at::Tensor images_of_gaussians(const Config& config, const ClassGaussians& gaussians);

}  // namespace sfumato
