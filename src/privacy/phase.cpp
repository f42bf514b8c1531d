#include "sfumato/privacy/phase.h"

#include <fmt/format.h>

#include <optional>
#include <vector>

#include "sfumato/core/error.h"
#include "sfumato/core/infinity.h"
#include "sfumato/core/text.h"
#include "sfumato/privacy/dominating_pair.h"

namespace sfumato {
namespace {

constexpr std::int64_t kMaxRecordsPerUnit = 100'000;
constexpr std::int64_t kMostRecords = 1'000'000'000'000;  // of a truncated sample

void check_truncation(const Phase& phase, Adjacency adjacency) {
  const Truncation& cut = *phase.truncation;
  if (cut.records < 1 || cut.max_batch < 1)
    throw UsageError(fmt::format("truncation to {} of {} records: both must be at least 1",
                                 cut.max_batch, cut.records));
  if (cut.records > kMostRecords)
    throw UsageError(fmt::format("truncation of {} records: at most {} are accounted for",
                                 cut.records, kMostRecords));
  if (adjacency == Adjacency::kAddRemove)
    throw PrivacyError(
        "truncated Poisson sampling needs a public number of records, which add_remove adjacency "
        "keeps private; choose zero_out or replace_one");
  if (phase.records_per_unit > 1)
    throw PrivacyError(
        "truncated Poisson sampling with several records per unit of privacy has no proven "
        "accounting here; choose Poisson sampling or one record per unit");
}

}  // namespace

void check_phase(const Phase& phase, Adjacency adjacency) {
  if (!(phase.sample_rate >= 0 && phase.sample_rate <= 1))
    throw UsageError(
        fmt::format("sample rate {} is outside [0, 1]; it is the probability with "
                    "which a record joins a step",
                    phase.sample_rate));
  if (!(phase.noise_multiplier >= 0))
    throw UsageError(
        fmt::format("noise multiplier {} is not a number >= 0", phase.noise_multiplier));
  if (phase.steps < 0) throw UsageError(fmt::format("steps {} is negative", phase.steps));
  if (phase.records_per_unit < 1 || phase.records_per_unit > kMaxRecordsPerUnit)
    throw UsageError(fmt::format("records per unit of privacy {} is outside 1 ... {}",
                                 phase.records_per_unit, kMaxRecordsPerUnit));
  if (phase.truncation) check_truncation(phase, adjacency);
  if (phase.records_per_unit > 1 && record_shift(adjacency).second != 0)
    dominating_pairs(0.5, adjacency, phase.records_per_unit);  // throws, and says why
}

Phase parse_phase(std::string_view text, std::int64_t records_per_unit) {
  std::vector<std::string_view> fields;
  for (std::string_view rest = text;;) {
    const std::size_t colon = rest.find(':');
    fields.push_back(rest.substr(0, colon));
    if (colon == rest.npos) break;
    rest.remove_prefix(colon + 1);
  }
  if (fields.size() == 3 || fields.size() == 5) {
    const auto sample_rate = parse_double(fields[0]);
    const auto noise = parse_double(fields[1]);
    const auto steps = parse_int64(fields[2]);
    const auto records =
        fields.size() == 5 ? parse_int64(fields[3]) : std::optional<std::int64_t>();
    const auto batch = fields.size() == 5 ? parse_int64(fields[4]) : std::optional<std::int64_t>();
    Phase phase{0, 0, 0, records_per_unit};
    if (records && batch) phase.truncation = Truncation{*records, *batch};
    if (sample_rate && noise && steps && phase.truncation.has_value() == (fields.size() == 5)) {
      phase.sample_rate = *sample_rate;
      phase.noise_multiplier = *noise;
      phase.steps = *steps;
      return phase;
    }
  }
  throw UsageError(
      fmt::format("phase '{}' is not sample_rate:noise_multiplier:steps; write for example "
                  "0.01:1.1:1000, or 0.01:1.1:1000:60000:800 for batches cut to 800 of 60000",
                  text));
}

void check_delta(double delta) {
  if (!(delta > 0 && delta < 1))
    throw UsageError(
        fmt::format("delta {} is outside (0, 1); choose it well below one over the "
                    "number of records, for example 1e-6",
                    delta));
}

void check_epsilon(double epsilon) {
  if (!(epsilon >= 0 && epsilon < kInfinity))
    throw UsageError(fmt::format("epsilon {} is not a finite number >= 0", epsilon));
}

}  // namespace sfumato
