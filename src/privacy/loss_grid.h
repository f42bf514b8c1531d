#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "loss_composition.h"

namespace sfumato {

/// What is asked of a composition: epsilon at this delta, or delta at this epsilon.
struct LossQuestion {
  std::optional<double> delta;
  double epsilon = 0;
  double about_delta = 0;  ///< where delta is asked for: an upper bound
};

/// The releases of a composition in one direction, cut into cells that are narrow where the
/// question is decided.
class LossGrid {
 public:
  struct Kind {
    LossMesh mesh;
    double count;
  };
  LossGrid(std::vector<Kind> kinds, const LossQuestion& question, double tolerance);

  /// Halves cells until splitting and merging them differ by about `share` of what is allowed: of
  /// the tolerance in epsilon as PldOptions tells, or five times that relative to delta; or until a
  /// lattice as fine as the narrowest cell would take more than `points` for the total loss. True
  /// if that stopped it, or the work that cells may take.
  bool refine(double share, double points);

  /// Tells what a first composition answered: to be asked again more exactly.
  void aim(double epsilon, double delta);
  /// At which to compose.
  double tilt() const { return window_tilt_.value_or(tilt_); }
  /// Spacing of a lattice that holds all borders.
  double width() const;
  /// Of all evaluations of densities so far.
  double work() const;
  std::vector<LossMasses> pessimistic() const;
  std::vector<LossMasses> optimistic() const;

 private:
  struct Outcome {
    double loss, ln_mass;
  };
  struct Moments {
    double ln_norm = 0, mean = 0, variance = 0;
  };
  struct Gaps;
  void merge_cells();
  LossCells without_top(const Kind& kind, bool pessimistic) const;
  static Moments moments(const std::vector<Outcome>& outcomes, double tilt);
  Moments total(double tilt) const;
  double ln_tail_factor(double tilt, double variance) const;
  double epsilon_at(double tilt, double ln_delta) const;
  double ln_delta_at(double tilt, double epsilon) const;
  void choose_tilt();
  template <typename F>
  double best_ln_tilt(const F& f) const;
  double tilt_for(double epsilon) const;
  double allowed() const;
  double window(double tilt) const;
  void shrink_window();
  double alone(double loss) const;
  Gaps gaps(double floor) const;
  bool halve_above(const Gaps& gaps, double threshold, double floor);

  std::vector<Kind> kinds_;
  LossQuestion question_;
  double tolerance_;
  double ln_finite_ = 0;
  std::vector<std::vector<Outcome>> merged_;  ///< every cell as one outcome
  double tilt_ = 1;     ///< the tilted mean of the total loss lies at the answer
  double epsilon_ = 0;  ///< about the answer
  double deviation_ = 0;
  std::optional<double> window_tilt_;
  std::optional<double> delta_;  ///< at epsilon_, as a first composition answered
};

}  // namespace sfumato
