#pragma once
#include <cstdint>
#include <optional>
#include <string_view>

#include "sfumato/privacy/adjacency.h"

namespace sfumato {

/// Batches of at most `max_batch` records out of a public number `records` of them: a larger
/// Poisson batch is cut to a uniformly random subset (Ganesh 2025, truncated Poisson sampling).
struct Truncation {
  std::int64_t records;
  std::int64_t max_batch;
  bool operator==(const Truncation&) const = default;
};

/// `steps` equal steps of the Poisson-subsampled Gaussian mechanism: every record joins a step by
/// itself with probability `sample_rate`, is clipped to norm C, and N(0, (noise_multiplier C)^2) is
/// added to each coordinate of the sum. A full-batch release is sample_rate 1.
struct Phase {
  double sample_rate;
  double noise_multiplier;
  std::int64_t steps;
  std::int64_t records_per_unit = 1;  ///< most records that one unit of privacy (a user) owns
  std::optional<Truncation> truncation = std::nullopt;  ///< none: true Poisson batches
  bool operator==(const Phase&) const = default;
};

/// UsageError: sample_rate outside [0, 1], noise_multiplier negative or NaN, steps negative,
/// records_per_unit outside 1 ... 100000. PrivacyError: replace_one with records_per_unit > 1.
void check_phase(const Phase& phase, Adjacency adjacency);
/// "q:sigma:steps", for example "0.01:1.1:1000", as the command line takes a phase, or
/// "q:sigma:steps:records:max_batch" with truncation; UsageError shows the form.
Phase parse_phase(std::string_view text, std::int64_t records_per_unit = 1);
/// UsageError unless 0 < delta < 1; unless 0 <= epsilon < infinity.
void check_delta(double delta);
void check_epsilon(double epsilon);

}  // namespace sfumato
