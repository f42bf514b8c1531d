#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <ostream>
#include <string>

namespace sfumato {

/// Items per second, smoothed: a ratio of exponentially weighted sums, so that it is right from the
/// first interval on and forgets half of the past in `half_life_s`.
class RateMeter {
 public:
  explicit RateMeter(double half_life_s = 20) : half_life_s_(half_life_s) {}
  /// `items` were done in the last `seconds`; intervals of 0 s or less only add to the items.
  void add(double items, double seconds);
  /// 0 before the first interval.
  double items_per_s() const;

 private:
  double half_life_s_;
  double items_ = 0;
  double seconds_ = 0;
};

/// What a progress line says.
struct ProgressState {
  std::int64_t step = 0;
  std::int64_t total = 0;
  double items_per_s = 0;         ///< images per second; left out if 0
  std::optional<double> epsilon;  ///< spent so far; left out for runs without privacy
  double seconds_left = 0;        ///< left out if negative or not finite
  std::string warning = {};       ///< in a few words; left out if empty
  bool nominal = false;           ///< the images are those of planned batches, not of real ones
};

/// "step 120/2000 · nominal 350 images/s · ε 3.21 · 4 min 5 s left · warning: fakes all alike"
std::string progress_text(const ProgressState& state);

/// Shows progress: on a terminal one line that is rewritten (at most ten times a second), elsewhere
/// plain lines, at most one every `plain_interval_s` and always the first and the last state.
class Progress {
 public:
  /// Monotonic seconds from any origin.
  using Clock = std::function<double()>;
  /// `out` must outlive this object. `clock` empty: the system's steady clock.
  Progress(std::ostream& out, bool is_terminal, double plain_interval_s, Clock clock = {});
  void update(const ProgressState& state);
  /// Shows the latest state if it is not yet there and ends the line; further updates start anew.
  void finish();

 private:
  void show(const ProgressState& state, double now_s);

  std::ostream& out_;
  bool is_terminal_;
  double interval_s_;
  Clock clock_;
  std::optional<double> shown_at_s_;
  std::optional<ProgressState> unshown_;
};

}  // namespace sfumato
