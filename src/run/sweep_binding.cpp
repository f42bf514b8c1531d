#include "sfumato/run/sweep_binding.h"

#include <fmt/format.h>

#include <cmath>

#include "run/json_alike.h"
#include "sfumato/core/text.h"

namespace sfumato {
namespace {

constexpr std::string_view kOf = " of ", kEpsilon = " runs, epsilon ", kDelta = ", delta ";

bool is_total(const SweepTotal& total) {
  return total.runs >= 2 && std::isfinite(total.epsilon) && total.epsilon >= 0 && total.delta > 0 &&
         total.delta < 1;
}

}  // namespace

std::string to_text(const SweepBinding& binding) {
  if (!binding.total) return binding.place;
  return fmt::format("{}{}{}{}{}{}{}", binding.place, kOf, binding.total->runs, kEpsilon,
                     binding.total->epsilon, kDelta, binding.total->delta);
}

SweepBinding parse_sweep_binding(const std::string& text) {
  const std::size_t of = text.find(kOf), epsilon = text.find(kEpsilon), delta = text.find(kDelta);
  SweepBinding binding{text.substr(0, of), std::nullopt};
  if (of == text.npos || epsilon == text.npos || delta == text.npos || !(of < epsilon) ||
      !(epsilon < delta))
    return binding;
  const auto between = [&](std::size_t begin, std::string_view mark, std::size_t end) {
    return text.substr(begin + mark.size(), end - begin - mark.size());
  };
  const auto runs = parse_int64(between(of, kOf, epsilon));
  const auto whole = parse_double(between(epsilon, kEpsilon, delta));
  const auto at = parse_double(between(delta, kDelta, text.size()));
  if (!runs || !whole || !at) return binding;
  if (const SweepTotal total{*runs, *whole, *at}; is_total(total)) binding.total = total;
  return binding;
}

std::optional<SweepTotal> sweep_total_in(const nlohmann::ordered_json& card) {
  const nlohmann::ordered_json& said = field(card, "sweep");
  if (!said.is_object() || !field(said, "runs").is_number_integer() ||
      !field(said, "epsilon").is_number() || !field(said, "delta").is_number())
    return std::nullopt;
  const SweepTotal total{said["runs"].get<std::int64_t>(), said["epsilon"].get<double>(),
                         said["delta"].get<double>()};
  const auto& own = field(card, "epsilon");
  const bool covers = own.is_number() && total.epsilon >= own.get<double>() * (1 - kCardTolerance);
  return is_total(total) && covers ? std::optional(total) : std::nullopt;
}

}  // namespace sfumato
