#include "sfumato/privacy/event.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "sfumato/core/error.h"
#include "sfumato/core/text.h"

namespace sfumato {
namespace {

using Json = nlohmann::ordered_json;

void check_count(std::int64_t count) {
  if (count < 0) throw UsageError(fmt::format("count {} is negative", count));
}

void check_release(const GaussianRelease& release) {
  if (!(release.sensitivity_l2 >= 0 && std::isfinite(release.sensitivity_l2)))
    throw UsageError(
        fmt::format("sensitivity {} is not a finite number >= 0", release.sensitivity_l2));
  if (!(release.noise_stddev >= 0))
    throw UsageError(
        fmt::format("noise standard deviation {} is not a number >= 0", release.noise_stddev));
  check_count(release.count);
}

void check_release(const ApproximateRelease& release) {
  if (!(release.epsilon >= 0))
    throw UsageError(fmt::format("epsilon {} is not a number >= 0", release.epsilon));
  if (!(release.delta >= 0 && release.delta <= 1))
    throw UsageError(fmt::format("delta {} is outside [0, 1]", release.delta));
  check_count(release.count);
}

std::vector<std::string_view> fields_of(std::string_view text) {
  std::vector<std::string_view> fields;
  while (true) {
    const std::size_t colon = text.find(':');
    fields.push_back(text.substr(0, colon));
    if (colon == text.npos) return fields;
    text.remove_prefix(colon + 1);
  }
}

/// a:b or a:b:count after the word.
struct Numbers {
  double first, second;
  std::int64_t count;
};
std::optional<Numbers> numbers_of(const std::vector<std::string_view>& fields) {
  if (fields.size() != 3 && fields.size() != 4) return std::nullopt;
  const auto first = parse_double(fields[1]);
  const auto second = parse_double(fields[2]);
  const auto count = fields.size() == 4 ? parse_int64(fields[3]) : std::optional<std::int64_t>(1);
  if (!first || !second || !count) return std::nullopt;
  return Numbers{*first, *second, *count};
}

double number(const nlohmann::json& json, const char* key) {
  const auto at = json.find(key);
  if (at != json.end() && at->is_number()) return at->get<double>();
  // Infinity has no JSON: null stands for it where a mechanism may have it.
  if (at != json.end() && at->is_null()) return std::numeric_limits<double>::infinity();
  throw DataError(fmt::format("privacy event: '{}' is missing or no number", key));
}

std::int64_t integer(const nlohmann::json& json, const char* key) {
  const auto at = json.find(key);
  if (at == json.end() || !at->is_number_integer() ||
      (at->is_number_unsigned() &&
       at->get<std::uint64_t>() > std::uint64_t{std::numeric_limits<std::int64_t>::max()}))
    throw DataError(fmt::format("privacy event: '{}' is missing or no 64-bit integer", key));
  return at->get<std::int64_t>();
}

std::int64_t times_saturating(std::int64_t count, std::int64_t times) {
  std::int64_t product = 0;
  return __builtin_mul_overflow(count, times, &product) ? std::numeric_limits<std::int64_t>::max()
                                                        : product;
}

}  // namespace

void check_event(const PrivacyEvent& event, Adjacency adjacency) {
  if (const auto* phase = std::get_if<Phase>(&event)) return check_phase(*phase, adjacency);
  if (const auto* gaussian = std::get_if<GaussianRelease>(&event)) return check_release(*gaussian);
  check_release(std::get<ApproximateRelease>(event));
}

PrivacyEvent parse_event(std::string_view text, std::int64_t records_per_unit) {
  const std::vector<std::string_view> fields = fields_of(text);
  const std::string_view word = fields.front();
  if (word != "gaussian" && word != "approximate" && parse_double(word))
    return parse_phase(text, records_per_unit);
  const std::optional<Numbers> numbers = numbers_of(fields);
  if (word == "gaussian" && numbers)
    return GaussianRelease{numbers->first, numbers->second, numbers->count};
  if (word == "approximate" && numbers)
    return ApproximateRelease{numbers->first, numbers->second, numbers->count};
  throw UsageError(fmt::format(
      "'{}' is no use of private data; write sample_rate:noise_multiplier:steps (0.01:1.1:1000), "
      "gaussian:sensitivity:stddev[:count] (gaussian:1:50) or approximate:epsilon:delta[:count] "
      "(approximate:0.5:1e-7)",
      text));
}

std::string to_text(const PrivacyEvent& event) {
  if (const auto* phase = std::get_if<Phase>(&event))
    return fmt::format("{}:{}:{}{}", phase->sample_rate, phase->noise_multiplier, phase->steps,
                       phase->truncation ? fmt::format(":{}:{}", phase->truncation->records,
                                                       phase->truncation->max_batch)
                                         : "");
  if (const auto* gaussian = std::get_if<GaussianRelease>(&event))
    return fmt::format("gaussian:{}:{}:{}", gaussian->sensitivity_l2, gaussian->noise_stddev,
                       gaussian->count);
  const auto& approximate = std::get<ApproximateRelease>(event);
  return fmt::format("approximate:{}:{}:{}", approximate.epsilon, approximate.delta,
                     approximate.count);
}

Json to_json(const PrivacyEvent& event) {
  if (const auto* phase = std::get_if<Phase>(&event)) {
    Json json = {{"mechanism", "sampled_gaussian"},
                 {"sample_rate", phase->sample_rate},
                 {"noise_multiplier", phase->noise_multiplier},
                 {"steps", phase->steps},
                 {"records_per_unit", phase->records_per_unit}};
    if (phase->truncation)
      json["truncation"] = {{"records", phase->truncation->records},
                            {"max_batch", phase->truncation->max_batch}};
    return json;
  }
  if (const auto* gaussian = std::get_if<GaussianRelease>(&event))
    return {{"mechanism", "gaussian"},
            {"sensitivity_l2", gaussian->sensitivity_l2},
            {"noise_stddev", gaussian->noise_stddev},
            {"count", gaussian->count}};
  const auto& approximate = std::get<ApproximateRelease>(event);
  return {{"mechanism", "approximate_dp"},
          {"epsilon", approximate.epsilon},
          {"delta", approximate.delta},
          {"count", approximate.count}};
}

PrivacyEvent event_from_json(const nlohmann::json& json) {
  const auto mechanism = json.is_object() ? json.find("mechanism") : json.end();
  if (!json.is_object() || mechanism == json.end() || !mechanism->is_string())
    throw DataError("privacy event: 'mechanism' is missing or no text");
  const std::string name = mechanism->get<std::string>();
  if (name == "gaussian")
    return GaussianRelease{number(json, "sensitivity_l2"), number(json, "noise_stddev"),
                           integer(json, "count")};
  if (name == "approximate_dp")
    return ApproximateRelease{number(json, "epsilon"), number(json, "delta"),
                              integer(json, "count")};
  if (name != "sampled_gaussian")
    throw DataError(
        fmt::format("privacy event: mechanism '{}' is none of sampled_gaussian, "
                    "gaussian, approximate_dp; it may come from a newer version",
                    name));
  Phase phase{number(json, "sample_rate"), number(json, "noise_multiplier"), integer(json, "steps"),
              integer(json, "records_per_unit")};
  if (json.contains("truncation"))
    phase.truncation = Truncation{integer(json["truncation"], "records"),
                                  integer(json["truncation"], "max_batch")};
  return phase;
}

PrivacyEvent repeated(const PrivacyEvent& event, std::int64_t times) {
  PrivacyEvent result = event;
  if (auto* phase = std::get_if<Phase>(&result)) {
    phase->steps = times_saturating(phase->steps, times);
  } else if (auto* gaussian = std::get_if<GaussianRelease>(&result)) {
    gaussian->count = times_saturating(gaussian->count, times);
  } else {
    auto& approximate = std::get<ApproximateRelease>(result);
    approximate.count = times_saturating(approximate.count, times);
  }
  return result;
}

}  // namespace sfumato
