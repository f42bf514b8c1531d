#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "harmonics.h"
#include "loss_composition.h"

namespace sfumato {

/// The composition of many releases: the distribution of the total loss under P. Composed once, it
/// answers at as many epsilons or deltas as one likes, in the time of a search in a table.
class ComposedLoss {
 public:
  /// By Fourier transforms of the masses tilted by e^(tilt loss), all losses, less their offsets,
  /// being multiples of `width`: of all points, or of few harmonics.
  /// `pessimistic`: what rounding and tails may hide counts against us, else for us. nullopt if it
  /// would need more than `max_points`.
  static std::optional<ComposedLoss> compose(std::span<const LossMasses> releases, double width,
                                             double tilt, std::int64_t max_points,
                                             bool pessimistic);
  /// Smallest epsilon >= 0 for delta; infinity where the mass at infinite loss exceeds it.
  double epsilon(double delta) const;
  double delta(double epsilon) const;
  /// Whether few harmonics were enough, which takes next to no time.
  bool by_harmonics() const { return harmonics_.has_value(); }

 private:
  /// Of the losses from one on upwards: delta at this loss, and the sum of p e^(this loss - loss);
  /// between two points delta grows by `near` (1 - e^-distance).
  struct Sums {
    double delta, near;
  };

  double solve(double delta) const;
  double uncertainty(double epsilon) const;
  double scale_at(double loss) const;
  double loss_from_top(std::size_t i) const;
  void add_up(std::span<const double> tilted);
  Sums sums_at(std::size_t from_top) const;
  std::size_t sums() const;

  bool pessimistic_ = true;
  double width_ = 0, lowest_ = 0, tilt_ = 0;
  double ln_scale_ = 0;  ///< ln E_P[e^(tilt loss)] of all releases
  std::size_t points_ = 0;
  std::optional<Harmonics> harmonics_;
  /// Without harmonics: at lowest_ + (points_ - 1 - i) width_, as far as delta is below 1.
  std::vector<Sums> sums_;
  double at_infinity_ = 0;
  double l2_error_ = 0;  ///< of the tilted probabilities, besides:
  Harmonics::Error harmonic_error_{0, 0, 0};
  double beyond_ = 0;  ///< tilted mass outside the window, each side
};

}  // namespace sfumato
