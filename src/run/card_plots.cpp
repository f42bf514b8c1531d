#include "sfumato/run/card_plots.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <vector>

#include "run/card_curves.h"
#include "run/json_alike.h"
#include "sfumato/core/bound_text.h"
#include "sfumato/core/text.h"
#include "sfumato/report/privacy_card.h"
#include "sfumato/report/svg_plot.h"

namespace sfumato {
namespace {

using Json = nlohmann::ordered_json;
using Rows = std::vector<std::pair<std::string, std::string>>;

constexpr std::string_view kBegin = "<section>\n<h2>What the claim amounts to</h2>\n";
constexpr std::string_view kEnd = "</section>\n";
constexpr double kLeastFalseAlarms = 1e-4, kLeastDeltaDrawn = 1e-8;
constexpr double kFalseAlarms[] = {0.0001, 0.001, 0.01, 0.05, 0.1, 0.2, 0.5};

/// What is read back from the text of each ε: plots show what the numbers beside them say.
CardCurves as_shown(CardCurves curves) {
  const auto read_back = [](double& epsilon) {
    epsilon = parse_double(epsilon_text(epsilon)).value_or(epsilon);
  };
  for (auto& [steps, epsilon] : curves.spent) read_back(epsilon);
  for (auto& [delta, epsilon] : curves.profile) read_back(epsilon);
  return curves;
}

std::string figure(const std::string& svg, const std::string& caption, const char* first,
                   const char* second, const Rows& rows) {
  std::string cells;
  for (const auto& [at, value] : rows)
    cells += fmt::format("<tr><td>{}</td><td>{}</td></tr>\n", at, value);
  return fmt::format(
      "<figure>{}<figcaption>{}</figcaption>\n<details><summary>in numbers</summary>\n<table>\n"
      "<thead><tr><th scope=\"col\">{}</th><th scope=\"col\">{}</th></tr></thead>\n<tbody>\n{}"
      "</tbody>\n</table>\n</details>\n</figure>\n",
      svg, html_escape(caption), first, second, cells);
}

/// An end of an axis with room for the words of a mark.
double roomy(double largest) { return largest > 0 ? 1.2 * largest : 1; }

std::string spent_figure(const CardCurves& curves, const Json& card) {
  if (curves.spent.empty()) return {};
  const auto [all, claimed] = curves.spent.back();
  SvgPlot plot;
  plot.name = fmt::format("ε by step: {} after all {} steps", epsilon_text(claimed), all);
  plot.x = {"steps of training", 0, static_cast<double>(all), false};
  plot.y = {"ε", 0, roomy(claimed), false};
  SvgCurve stairs;
  Rows rows;
  for (const auto& [steps, epsilon] : curves.spent) {
    if (!stairs.points.empty()) stairs.points.emplace_back(stairs.points.back().first, epsilon);
    stairs.points.emplace_back(static_cast<double>(steps), epsilon);
    rows.emplace_back(fmt::format("{}", steps), epsilon_text(epsilon));
  }
  plot.curves = {stairs};
  plot.mark = stairs.points.back();
  plot.mark_text = fmt::format("ε = {}", epsilon_text(claimed));
  return figure(svg_plot(plot),
                fmt::format("ε by step, at δ = {}: what is spent once so many steps are charged, "
                            "rounded up to the next point.",
                            card.at("delta").get<double>()),
                "steps", "ε", rows);
}

/// From one point of the profile to the next along the chord over e^ε, which is an upper bound.
/// Where δ is drawn by its logarithm it bends downwards, and a straight line between two points of
/// it would lie below. Its tangents lie above: the line goes along those at both ends, to where
/// they meet.
void add_chord(std::pair<double, double> first, std::pair<double, double> last, SvgPoints& points) {
  constexpr int kPieces = 12;  // of the same share of ln δ, so that none is far above the chord
  const auto [high, from] = first;
  const auto [low, to] = last;
  const double slope = (high - low) / std::expm1(to - from), top = high + slope;
  double begin = from, delta = high;
  for (int piece = 1; piece <= kPieces; ++piece) {
    const double next =
        piece == kPieces ? low : high * std::pow(low / high, static_cast<double>(piece) / kPieces);
    const double end =
        piece == kPieces ? to : std::clamp(from + std::log((top - next) / slope), begin, to);
    const double left = (top - delta) / delta, right = (top - next) / next;  // -d ln δ / dε
    if (right > left) {
      const double along = ((end - begin) * right + std::log(next / delta)) / (right - left);
      const double meet = std::clamp(along, 0.0, end - begin);
      points.emplace_back(begin + meet, delta * std::exp(-left * meet));
    }
    points.emplace_back(end, next);
    begin = end, delta = next;
  }
}

/// From the smallest ε to the largest, nowhere below the chords between points.
SvgPoints convex(const std::vector<std::pair<double, double>>& profile) {
  std::vector<std::pair<double, double>> corners = {{1, 0}};  // no δ is above 1
  for (const auto& [delta, epsilon] : profile) {
    if (epsilon == corners.back().second) corners.pop_back();
    corners.emplace_back(delta, epsilon);
  }
  SvgPoints points = {{corners.front().second, corners.front().first}};
  for (std::size_t i = 1; i < corners.size(); ++i) add_chord(corners[i - 1], corners[i], points);
  return points;
}

std::string profile_figure(const CardCurves& curves, const Json& card) {
  const double delta = card.at("delta").get<double>();
  // Far below what is claimed nobody looks; the numbers go on.
  const double least = std::min(kLeastDeltaDrawn, delta / 100);
  std::vector<std::pair<double, double>> drawn;
  for (const auto& point : curves.profile)
    if (drawn.empty() || point.first >= least) drawn.push_back(point);
  SvgPlot plot;
  plot.name = fmt::format("δ against ε: the claim is ε = {} at δ = {}",
                          epsilon_text(card.at("epsilon").get<double>()), delta);
  plot.x = {"ε", 0, roomy(drawn.back().second), false};
  plot.y = {"δ", drawn.back().first, 1, true};
  plot.curves = {{"", convex(drawn), false}};
  for (const auto& [at, epsilon] : curves.profile)
    if (at == delta) plot.mark = {epsilon, at};
  plot.mark_text = "claimed";
  Rows rows;
  for (const auto& [at, epsilon] : curves.profile)
    rows.emplace_back(fmt::format("{}", at), epsilon_text(epsilon));
  return figure(svg_plot(plot),
                "δ against ε: one release, and every point of the line holds for it; a smaller δ "
                "has a larger ε.",
                "δ", "ε", rows);
}

/// The most recognised at a rate, no more than the card itself says of it.
double recognised(const CardCurves& curves, const Json& card, double rate) {
  double most = largest_true_positive_rate(curves.profile, rate);
  for (const Json& bound : field(card, "largest_true_positive_rate"))
    if (field(bound, "false_positive_rate") == Json(rate) &&
        field(bound, "true_positive_rate").is_number())
      most = std::min(most, bound["true_positive_rate"].get<double>());
  return most;
}

std::string attack_figure(const CardCurves& curves, const Json& card) {
  constexpr int kPoints = 160;
  SvgPlot plot;
  plot.x = {"false alarms", kLeastFalseAlarms, 1, true};
  plot.y = {"recognised", 0, 1, false};
  SvgPoints guessing;
  for (int i = 0; i <= kPoints; ++i) {
    const double rate = plot.x.value(static_cast<double>(i) / kPoints);
    plot.excluded.emplace_back(rate, largest_true_positive_rate(curves.profile, rate));
    guessing.emplace_back(rate, rate);
  }
  plot.curves = {{"", guessing, true}};
  Rows rows;
  for (const double rate : kFalseAlarms)
    rows.emplace_back(fmt::format("{:g} %", 100 * rate),
                      upper_bound_text(100 * recognised(curves, card, rate), 3) + " %");
  const Json& said = field(card, "unit");
  const std::string unit = said.is_string() ? said.get<std::string>() : std::string();
  plot.name = fmt::format("what an attacker can tell: at most {} recognised at {} false alarms",
                          rows[2].second, rows[2].first);
  return figure(svg_plot(plot),
                fmt::format("What an attacker can tell: how often any test for {} is right at most "
                            "where it was used, by its rate of false alarms where it was not. "
                            "Nothing reaches into the shaded part; dotted is guessing.",
                            unit.empty() ? "one unit" : unit),
                "false alarms", "recognised at most", rows);
}

std::string reading(const CardCurves& curves, const Json& card) {
  std::string text =
      "Every point is an upper bound that follows from the stages on the card alone. Rates of an "
      "attacker follow from all points of δ against ε at once: from more of them than the card's "
      "own rates, which may be larger.";
  if (card.contains("selection_law"))
    text +=
        " The claim is that of a private selection as a whole, of which a part of one run is no "
        "claim: ε by step is left out.";
  else if (curves.spent.empty())
    text += " No steps are counted that ε could be shown by.";
  if (field(card, "candidates").is_number() && card["candidates"] > 1)
    text += " Every step is counted for all candidates.";
  if (field(card, "checkpoint_step").is_number())
    text += fmt::format(
        " These weights are those after step {}, chosen among checkpoints: their ε is that of all "
        "steps, not the one shown at that step.",
        card["checkpoint_step"].dump());
  if (card.contains("sweep") && !card["sweep"].is_null())
    text += " The plots are about this run alone, which is one of a sweep.";
  return fmt::format("<p style=\"margin:0\">{}</p>\n", html_escape(text));
}

std::string section_of(const CardCurves& exact, const Json& card) {
  const CardCurves curves = as_shown(exact);
  return fmt::format(
      "{}<div style=\"display:grid;gap:1rem;grid-template-columns:repeat(auto-fit,minmax(min(24rem,"
      "100%),1fr))\">\n{}{}{}{}</div>\n{}",
      kBegin, spent_figure(curves, card), profile_figure(curves, card), attack_figure(curves, card),
      reading(curves, card), kEnd);
}

/// Second cells of all rows, in order.
std::vector<std::string> values_in(const std::string& section) {
  constexpr std::string_view kFrom = "</td><td>", kTo = "</td></tr>";
  std::vector<std::string> values;
  for (std::size_t at = 0; (at = section.find(kFrom, at)) != section.npos;) {
    at += kFrom.size();
    const std::size_t end = section.find(kTo, at);
    if (end == section.npos) break;
    values.push_back(section.substr(at, end - at));
  }
  return values;
}

}  // namespace

std::string card_plots(const Json& card) {
  const std::optional<CardCurves> curves = card_curves(card);
  return curves ? section_of(*curves, card) : std::string();
}

std::string card_plots_in(const std::string& page) {
  const std::size_t begin = page.find(kBegin);
  if (begin == page.npos) return {};
  const std::size_t end = page.find(kEnd, begin);
  return end == page.npos ? std::string() : page.substr(begin, end + kEnd.size() - begin);
}

std::string card_plots_defect(const Json& card, const std::string& section) {
  std::optional<CardCurves> curves = card_curves(card);
  if (!curves) return "shows plots, and the card beside it proves none";
  const std::vector<std::string> values = values_in(section);
  std::string defect;
  std::size_t next = 0;
  // Other machines round otherwise, so that the page's own numbers are drawn again.
  const auto take = [&](double& epsilon, const std::string& where) {
    const std::string text = next < values.size() ? values[next] : std::string();
    ++next;
    const std::optional<double> said = parse_double(text);
    if (!said || !std::isfinite(*said) || *said < epsilon * (1 - kCardTolerance)) {
      if (defect.empty())
        defect = fmt::format("shows ε = '{}' at {}, and by the card beside it ε is {}", text, where,
                             epsilon_text(epsilon));
      return;
    }
    epsilon = *said;
  };
  for (auto& [steps, epsilon] : curves->spent) take(epsilon, fmt::format("step {}", steps));
  for (auto& [delta, epsilon] : curves->profile) take(epsilon, fmt::format("δ = {}", delta));
  if (!defect.empty()) return defect;
  if (section_of(*curves, card) != section)
    return "shows plots that do not say what its numbers say";
  return {};
}

}  // namespace sfumato
