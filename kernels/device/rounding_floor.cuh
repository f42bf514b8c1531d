#pragma once
// What is added to the squared norm of an exact gradient, so that it is never below that of the
// gradient as float32 sums it.
#include <cstdint>

#include "kernels/device/macros.cuh"

namespace sfumato::device {

/// A gradient that is the sum of `terms` terms of norms |g_t| comes out of float32 sums with an
/// error of about u sqrt(terms) M, u = 2^-24, M = `magnitude` = sum_t |g_t|; 8 times that is added
/// in quadrature.
SFUMATO_DEVICE double with_rounding_floor(double squared, double magnitude, std::int64_t terms) {
  const double error = 0x1p-21 * magnitude;
  return squared + static_cast<double>(terms) * (error * error);
}

}  // namespace sfumato::device
