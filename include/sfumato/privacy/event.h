#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "sfumato/privacy/adjacency.h"
#include "sfumato/privacy/phase.h"

namespace sfumato {

/// `count` releases of a vector whose L2 sensitivity, under the adjacency that is accounted for, is
/// `sensitivity_l2`, each with N(0, noise_stddev^2) added to every coordinate.
struct GaussianRelease {
  double sensitivity_l2;
  double noise_stddev;
  std::int64_t count = 1;
  bool operator==(const GaussianRelease&) const = default;
};

/// `count` uses of any mechanism that is (epsilon, delta)-DP under the adjacency that is accounted
/// for and for the whole unit of privacy. Delta may be 0.
struct ApproximateRelease {
  double epsilon;
  double delta;
  std::int64_t count = 1;
  bool operator==(const ApproximateRelease&) const = default;
};

/// One use of the private data as accountants see it. Events compose adaptively.
using PrivacyEvent = std::variant<Phase, GaussianRelease, ApproximateRelease>;

/// UsageError for numbers out of range; PrivacyError for combinations without proof.
void check_event(const PrivacyEvent& event, Adjacency adjacency);

/// "q:sigma:steps" (see parse_phase), "gaussian:sensitivity:stddev[:count]" or
/// "approximate:epsilon:delta[:count]"; UsageError shows the forms.
PrivacyEvent parse_event(std::string_view text, std::int64_t records_per_unit = 1);
/// The inverse; numbers in the shortest form that reads back to the same bits.
std::string to_text(const PrivacyEvent& event);

/// {"mechanism": "sampled_gaussian", "sample_rate", "noise_multiplier", "steps",
/// "records_per_unit"}, {"mechanism": "gaussian", "sensitivity_l2", "noise_stddev", "count"} or
/// {"mechanism": "approximate_dp", "epsilon", "delta", "count"}; a truncated phase has
/// "truncation":
/// {"records", "max_batch"} besides. Ledgers and cards hold events for as long as they are kept: a
/// field that comes later is written like "truncation", only where it is not at its default, which
/// means what was done before.
nlohmann::ordered_json to_json(const PrivacyEvent& event);
/// The inverse; other keys in the object are left alone. DataError for a missing or ill-typed key.
PrivacyEvent event_from_json(const nlohmann::json& json);

/// The same event `times` times over: its steps or count multiplied, saturating.
PrivacyEvent repeated(const PrivacyEvent& event, std::int64_t times);

}  // namespace sfumato
