#include "sfumato/audit/membership_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "audit/rate_text.h"
#include "audit/roc_plot.h"
#include "sfumato/audit/tail_probabilities.h"
#include "sfumato/core/bound_text.h"
#include "sfumato/core/text.h"
#include "sfumato/report/html_report.h"

namespace sfumato {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kMembershipNotes[] = {
    "The attacks compare records the network was trained on with records it was not. They measure "
    "what these scores find, which is a lower bound on what can be found: values near chance "
    "do not prove privacy, and an AUROC above 1/2 does not by itself contradict a claim.",
    "Both sets must come from the same population, chosen alike. Where they differ in any other "
    "way (camera, year, preparation), a score finds that difference and calls it membership.",
    "Timesteps and thresholds were chosen on one half of the records; every number here is of the "
    "other half. Intervals are Clopper-Pearson at 95 %; of the AUROC, Newcombe's method 5 with "
    "Hanley and McNeil's variance.",
    "The claim is contradicted where the true positive rate lies above what any (ε, δ) private "
    "training permits at the false positive rate, both at the unfavourable end of intervals that "
    "hold together with confidence 95 %.",
    "Scores are computed from private images. This folder stays with their holder."};

int64_t points_of(const MembershipAudit& audit) {
  int64_t points = 0;
  for (const AttackResult& result : audit.results) points += std::ssize(result.points);
  return points;
}

std::string auroc_text(const Auroc& area) {
  return fmt::format("{:.3f} ({:.3f} to {:.3f})", area.value, area.lower, area.upper);
}

/// A threshold for a rate below one in `others` cannot be found; the lowest score stands in.
bool too_few(const MembershipAudit& audit, double target) {
  return static_cast<double>((audit.non_members.records.size() + 1) / 2) * target < 1;
}

std::vector<std::string> warnings_of(const MembershipAudit& audit) {
  std::vector<std::string> warnings = audit.warnings;
  for (const double target : kFalsePositiveRates)
    if (too_few(audit, target))
      warnings.push_back(fmt::format(
          "{} non-members are too few for a threshold at a false positive rate of {}; at least "
          "{:.0f} "
          "are needed. The lowest score of their selection half stands in, and its true rate is "
          "higher.",
          audit.non_members.records.size(), percent(target), 2 / target));
  return warnings;
}

std::string verdict_sentence(const MembershipAudit& audit) {
  switch (verdict_of(audit)) {
    case Verdict::kNoClaim: return "There is no claim to test: " + audit.no_claim;
    case Verdict::kConsistent:
      return fmt::format(
          "Consistent with the claim of ε = {} at δ = {}: no attack found "
          "more members than it permits. This is no evidence that it holds.",
          epsilon_text(audit.claim->epsilon()), audit.claim->delta());
    case Verdict::kContradicts:
      return fmt::format(
          "Contradicts the claim of ε = {} at δ = {}: an attack found more "
          "members than it permits.",
          epsilon_text(audit.claim->epsilon()), audit.claim->delta());
  }
  return {};
}

std::string permitted_text(const MembershipAudit& audit, double rate) {
  return audit.claim ? upper_bound_text(100 * audit.claim->max_true_positive_rate(rate), 3) + " %"
                     : "no claim";
}

std::string point_rows(const MembershipAudit& audit) {
  std::string rows;
  for (const AttackResult& result : audit.results)
    for (const OperatingPoint& point : result.points)
      rows += fmt::format(
          "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
          html_escape(result.column.name()), percent(point.target),
          rate_text(point.false_positives), rate_text(point.true_positives),
          permitted_text(audit, point.target),
          !audit.claim                                         ? "no claim"
          : contradicts(point, *audit.claim, points_of(audit)) ? "<strong>contradicts</strong>"
                                                               : "consistent");
  return rows;
}

std::string pictures(const MembershipAudit& audit) {
  std::vector<NamedRoc> curves;
  for (const AttackResult& result : audit.results)
    curves.push_back({result.column.name(), result.roc});
  const auto fewest = static_cast<double>(
      std::min(audit.members.records.size(), audit.non_members.records.size()) / 2);
  const double least = std::clamp(1 / fewest, 1e-5, 0.1);
  const ClaimedBound* claim = audit.claim ? &*audit.claim : nullptr;
  return fmt::format(
      "<section>\n<h2>ROC</h2>\n<figure>\n{}<figcaption>Logarithmic axes: the few most certain "
      "answers.{}</figcaption>\n</figure>\n<figure>\n{}<figcaption>Linear axes. Dotted: "
      "guessing.</figcaption>\n</figure>\n</section>\n",
      roc_svg(curves, claim, true, least), claim ? " Shaded: what the claim excludes." : "",
      roc_svg(curves, claim, false, least));
}

}  // namespace

std::string to_string(Verdict verdict) {
  switch (verdict) {
    case Verdict::kNoClaim: return "no claim";
    case Verdict::kConsistent: return "consistent";
    case Verdict::kContradicts: return "contradicts the claim";
  }
  return {};
}

bool contradicts(const OperatingPoint& point, const ClaimedBound& claim, int64_t points) {
  const double alpha = 0.05 / (2 * static_cast<double>(points));
  const double found =
      clopper_pearson_lower(point.true_positives.hits, point.true_positives.trials, alpha);
  const double falsely =
      clopper_pearson_upper(point.false_positives.hits, point.false_positives.trials, alpha);
  return found > claim.max_true_positive_rate(falsely);
}

Verdict verdict_of(const MembershipAudit& audit) {
  if (!audit.claim) return Verdict::kNoClaim;
  const int64_t points = points_of(audit);
  for (const AttackResult& result : audit.results)
    for (const OperatingPoint& point : result.points)
      if (contradicts(point, *audit.claim, points)) return Verdict::kContradicts;
  return Verdict::kConsistent;
}

Json to_json(const MembershipAudit& audit) {
  Json out{{"model", audit.model},
           {"verdict", to_string(verdict_of(audit))},
           {"claim", nullptr},
           {"members", audit.members.records.size()},
           {"non_members", audit.non_members.records.size()},
           {"non_members_held_out", audit.held_out},
           {"attacks", Json::array()}};
  if (audit.claim)
    out["claim"] = {{"epsilon", audit.claim->epsilon()}, {"delta", audit.claim->delta()}};
  for (const AttackResult& result : audit.results) {
    Json attack{{"score", to_string(result.column.score)},
                {"timestep", nullptr},
                {"selection_auroc", result.selection_auroc},
                {"auroc", result.auroc.value},
                {"auroc_lower", result.auroc.lower},
                {"auroc_upper", result.auroc.upper},
                {"points", Json::array()}};
    if (result.column.timestep >= 0) attack["timestep"] = result.column.timestep;
    for (const OperatingPoint& point : result.points) {
      Json entry{{"target_false_positive_rate", point.target},
                 {"threshold", point.threshold},
                 {"false_positive_rate", rate_json(point.false_positives)},
                 {"true_positive_rate", rate_json(point.true_positives)},
                 {"max_true_positive_rate", nullptr},
                 {"contradicts", false}};
      if (audit.claim) {
        entry["max_true_positive_rate"] = audit.claim->max_true_positive_rate(point.target);
        entry["contradicts"] = contradicts(point, *audit.claim, points_of(audit));
      }
      attack["points"].push_back(entry);
    }
    out["attacks"].push_back(attack);
  }
  out["warnings"] = warnings_of(audit);
  return out;
}

std::string membership_text(const MembershipAudit& audit) {
  std::string out = fmt::format("{:<12} {:<22} {:>8} {:<30} {:>10}\n", "score", "AUROC (95 %)",
                                "at FPR", "TPR (95 %)", "permitted");
  for (const AttackResult& result : audit.results)
    for (const OperatingPoint& point : result.points) {
      const bool first = &point == &result.points.front();
      out += fmt::format("{:<12} {:<22} {:>8} {:<30} {:>10}\n", first ? result.column.name() : "",
                         first ? auroc_text(result.auroc) : "", percent(point.target),
                         rate_text(point.true_positives), permitted_text(audit, point.target));
    }
  return out + verdict_sentence(audit) + "\n";
}

std::string membership_html(const MembershipAudit& audit) {
  std::string body = fmt::format("<div class=\"banner {}\"><p>{}</p></div>\n",
                                 verdict_of(audit) == Verdict::kContradicts ? "alarm" : "private",
                                 html_escape(verdict_sentence(audit)));
  std::string items;
  for (const std::string& warning : warnings_of(audit))
    items += fmt::format("<li>{}</li>\n", html_escape(warning));
  if (!items.empty())
    body += fmt::format("<section>\n<h2>Warnings</h2>\n<ul>\n{}</ul>\n</section>\n", items);
  std::string rows;
  for (const AttackResult& result : audit.results)
    rows += fmt::format("<tr><td>{}</td><td>{}</td><td>{:.3f}</td></tr>\n",
                        html_escape(result.column.name()), auroc_text(result.auroc),
                        result.selection_auroc);
  body += fmt::format(
      "<section>\n<h2>Attacks</h2>\n<p>{} members, {} non-members, half of each reported "
      "on.</p>\n<table>\n<thead><tr><th>score</th><th>AUROC (95 %)</th><th>on the half "
      "that chose</th></tr></thead>\n<tbody>\n{}</tbody>\n</table>\n</section>\n",
      audit.members.records.size(), audit.non_members.records.size(), rows);
  body += fmt::format(
      "<section>\n<h2>True positive rates</h2>\n<table>\n<thead><tr><th>score</th><th>chosen "
      "for FPR</th><th>FPR (95 %)</th><th>TPR (95 %)</th><th>most permitted</th><th>verdict"
      "</th></tr></thead>\n<tbody>\n{}</tbody>\n</table>\n</section>\n",
      point_rows(audit));
  body += pictures(audit);
  items.clear();
  for (const char* note : kMembershipNotes)
    items += fmt::format("<li>{}</li>\n", html_escape(note));
  body += fmt::format("<section>\n<h2>How to read this</h2>\n<ul>\n{}</ul>\n</section>\n", items);
  return html_page("Membership attacks on " + audit.model, body);
}

std::string membership_csv(const MembershipAudit& audit) {
  std::string out = "set,record,half";
  for (const ScoreColumn& column : audit.columns) out += "," + column.name();
  out += "\n";
  for (const auto& [name, set] :
       {std::pair{"member", &audit.members}, std::pair{"non_member", &audit.non_members}}) {
    const at::Tensor scores = set->scores.contiguous();
    const double* score = scores.const_data_ptr<double>();
    for (std::size_t i = 0; i < set->records.size(); ++i) {
      out += fmt::format("{},{},{}", name, set->records[i], i % 2 == 0 ? "selection" : "report");
      for (std::size_t column = 0; column < audit.columns.size(); ++column)
        out += fmt::format(",{:.9g}", *score++);
      out += "\n";
    }
  }
  return out;
}

}  // namespace sfumato
