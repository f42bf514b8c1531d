#pragma once
#include <complex>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "tilted_masses.h"

namespace sfumato {

/// How many changes in all: one kind of release with its count.
struct Repeated {
  Change change;
  double count;
  double deviation;  ///< of its loss, in lattice steps
};

/// The total of many releases on a ring of lattice points by those of its harmonics that are not
/// negligible. Where many smooth losses add up these are a few dozen, however fine the lattice is,
/// and sums from a point to the top have a closed form.
class Harmonics {
 public:
  /// nullopt if it is not certain that few harmonics are all that matter. Certain: between two
  /// frequencies the transform of a release changes by at most their distance times its standard
  /// deviation, and so a short transform bounds it everywhere. `first`: the place on the ring of
  /// point 0; `tilt`, `width`: weights fall by e^(-tilt width) for each point.
  static std::optional<Harmonics> of(std::span<const Repeated> releases, std::int64_t points,
                                     std::int64_t first, double tilt, double width);

  /// Of the points from i on, with p_j their probabilities and f = e^(-tilt width): the sum of
  /// p_j f^(j-i) (1 - e^(-(j-i) width)), and of p_j f^(j-i) e^(-(j-i) width).
  struct Sums {
    double delta, near;
  };
  Sums from(std::int64_t i) const;
  /// Bounds of what rounding changes in these: `at` in delta, at i and less than a point below it,
  /// with `end` f^(points - i) besides; `near` in the other.
  struct Error {
    double at, end, near;
  };
  /// `factors`: how many transforms of changes, relative to their probability, a bin is made of.
  Error error(double factors) const;

 private:
  struct Harmonic {
    std::int64_t frequency;
    std::complex<double> bin;
    std::complex<double> delta, near, both;  ///< what e^(2 pi i frequency place / points) counts
  };
  std::vector<Harmonic> harmonics_;
  std::int64_t points_ = 0;
  double tilt_ = 0, width_ = 0;
  double roundings_ = 0;  ///< of a bin of one release, relative to the probability of a change
  double size_at_ = 0, size_end_ = 0, size_near_ = 0;  ///< of all terms together
};

}  // namespace sfumato
