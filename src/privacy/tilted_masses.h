#pragma once
#include <complex>
#include <cstdint>
#include <span>
#include <vector>

#include "loss_composition.h"

namespace sfumato {

/// One kind of release after tilting: probabilities, their ln normaliser, mean and variance.
struct Tilted {
  std::vector<double> p;
  double ln_norm = 0, mean = 0, variance = 0;
};

/// Tilted mass that a window may leave outside, on each side.
constexpr double kBeyond = 1e-14;

/// Where the tilted total loss lies, up to kBeyond on each side.
struct Window {
  std::vector<Tilted> tilted;
  double ln_scale = 0, low = 0, high = 0;
};
Window window_of(std::span<const LossMasses> releases, double tilt, double width);

/// How far the tilted total loss spreads, but for a probability of 1e-14 on each side.
double window_length(std::span<const LossMasses> releases, double tilt);

/// A release as a change to its most probable loss: where that is, and the probabilities of the
/// others relative to it on a ring, less the 1 at it. Fourier transforms then err relative to
/// `changed`, the probability of any other loss, which is small where most releases reveal next to
/// nothing.
struct Change {
  struct Other {
    std::int64_t steps;  ///< of `width`, from the most probable loss
    double p;
  };
  std::vector<Other> others;
  std::int64_t at = 0;
  double changed = 0;

  std::vector<double> ring(std::int64_t points) const;
};
Change change_of(const Tilted& tilted, const LossMasses& release, double width);

/// Bins of a product smaller than e to this are dropped.
constexpr double kLnNegligible = -45;

/// product (1 + bins)^count, through logarithms: high powers of what is far below 1 are 0.
void multiply_power(std::vector<std::complex<double>>& product,
                    const std::vector<std::complex<double>>& bins, double count);

std::int64_t modulo(std::int64_t value, std::int64_t points);
/// count * at (mod points), exactly for counts and places below 2^53.
std::int64_t shifted(double count, std::int64_t at, std::int64_t points);

}  // namespace sfumato
