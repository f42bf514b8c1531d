#pragma once
#include <cstdint>
#include <vector>

#include "sfumato/privacy/accountant.h"

namespace sfumato {

/// What a calibration aims at. `spent` are phases already charged (or to be charged) besides the
/// one that is sought; the target holds for all of them together.
struct CalibrationTarget {
  double epsilon;
  double delta;
  Adjacency adjacency = Adjacency::kZeroOut;
  std::int64_t records_per_unit = 1;
  std::vector<PrivacyEvent> spent = {};
  Accountant accountant = Accountant::kPld;
  /// Then `epsilon` is that of the whole selection, and what is sought and spent that of one run.
  std::optional<Selection> selection = std::nullopt;
};

/// The phase found and the statement recomputed with it from scratch, whose epsilon is at most the
/// target.
struct Calibration {
  Phase phase;
  PrivacyStatement statement;
};

/// Smallest noise multiplier, rounded up to seven significant digits.
/// UsageError: target or numbers out of range, sample_rate or steps 0 (nothing to calibrate).
/// PrivacyError: unreachable; says what the spent phases alone cost.
Calibration calibrate_noise_multiplier(const CalibrationTarget& target, double sample_rate,
                                       std::int64_t steps);

/// Largest number of steps, exact, at most 2^53.
/// PrivacyError: not even one step fits; says what one step costs. UsageError: no privacy is spent
/// per step (sample_rate 0, infinite noise).
Calibration calibrate_steps(const CalibrationTarget& target, double sample_rate,
                            double noise_multiplier);

/// Largest sample rate in (0, 1], rounded down to seven significant digits.
/// PrivacyError: not even 1e-12 fits; says what that costs.
Calibration calibrate_sample_rate(const CalibrationTarget& target, double noise_multiplier,
                                  std::int64_t steps);

/// The epsilon that is left for one more stage at the same delta: the largest e such that an
/// (e, 0)-DP stage on top of what is spent keeps the target, rounded down to seven significant
/// digits. PrivacyError as above.
double calibrate_remaining_epsilon(const CalibrationTarget& target);

}  // namespace sfumato
