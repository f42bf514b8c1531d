// How a privacy card reads: banner, rows, Markdown.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "sfumato/core/bound_text.h"
#include "sfumato/report/privacy_card.h"

namespace sfumato {
namespace {

using Json = nlohmann::ordered_json;
using Rows = std::vector<std::pair<std::string, std::string>>;

/// A field as text; "" if it is absent, null or a container.
std::string text_of(const Json& json, const std::string& key) {
  if (!json.is_object() || !json.contains(key)) return "";
  const Json& value = json[key];
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_float()) return fmt::format("{}", value.get<double>());
  if (value.is_number() || value.is_boolean()) return value.dump();
  return "";
}

std::vector<std::string> list_of(const Json& json, const std::string& key) {
  std::vector<std::string> items;
  if (json.is_object() && json.contains(key) && json[key].is_array())
    for (const Json& item : json[key])
      if (item.is_string()) items.push_back(item.get<std::string>());
  return items;
}

bool is_private(const Json& card) { return text_of(card, "status") == "private"; }

/// "402 charged of 400 planned"
std::string counts_text(const Json& stage) {
  return fmt::format("{} charged of {} planned", text_of(stage, "charged"),
                     text_of(stage, "planned"));
}

std::string stage_text(const Json& stage) {
  const std::string mechanism = text_of(stage, "mechanism");
  std::string text = mechanism;
  if (mechanism == "sampled_gaussian") {
    text = fmt::format("Poisson-sampled Gaussian, sampling rate {}, noise multiplier {}",
                       text_of(stage, "sample_rate"), text_of(stage, "noise_multiplier"));
  } else if (mechanism == "gaussian") {
    text = fmt::format("Gaussian, sensitivity {}, noise {}", text_of(stage, "sensitivity_l2"),
                       text_of(stage, "noise_stddev"));
  } else if (mechanism == "approximate_dp") {
    text = fmt::format("a mechanism with ε {} and δ {}", text_of(stage, "epsilon"),
                       text_of(stage, "delta"));
  }
  if (const std::string most = text_of(stage, "records_per_unit"); !most.empty() && most != "1")
    text += fmt::format(", at most {} records of a unit", most);
  text += ", " + counts_text(stage);
  if (text_of(stage, "declared") == "true") return text + ", made elsewhere and counted here";
  text += fmt::format(", clip norm {}", text_of(stage, "clip_norm_l2"));
  if (const std::string clipping = text_of(stage, "clipping"); !clipping.empty())
    text +=
        fmt::format(" ({}), expected batch {}", clipping, text_of(stage, "expected_batch_size"));
  return text;
}

/// "10 % → 55 %" of each bound on what an attacker can do.
std::string attack_text(const Json& card) {
  std::vector<std::string> parts;
  if (card.contains("largest_true_positive_rate"))
    for (const Json& bound : card["largest_true_positive_rate"])
      if (bound.is_object() && bound.contains("false_positive_rate") &&
          bound["false_positive_rate"].is_number() && bound.contains("true_positive_rate") &&
          bound["true_positive_rate"].is_number())
        parts.push_back(
            fmt::format("{} % at {:.3g} % false alarms",
                        upper_bound_text(100 * bound["true_positive_rate"].get<double>(), 3),
                        100 * bound["false_positive_rate"].get<double>()));
  return fmt::format("{}", fmt::join(parts, "; "));
}

std::string start_text(const Json& card) {
  if (!card.contains("initial_weights") || !card["initial_weights"].is_object()) return "";
  const Json& initial = card["initial_weights"];
  const std::string origin = text_of(initial, "origin");
  if (origin == "scratch") return "weights drawn at random";
  if (origin == "private")
    return fmt::format(
        "weights of an earlier private run (SHA-256 {}), whose cost is counted in what is declared",
        text_of(initial, "sha256"));
  return fmt::format("pretrained weights (SHA-256 {})", text_of(initial, "sha256"));
}

std::string curve_text(const Json& card) {
  std::vector<std::string> parts;
  if (card.contains("epsilon_at_delta"))
    for (const Json& point : card["epsilon_at_delta"])
      if (point.is_object() && point.contains("epsilon") && point["epsilon"].is_number())
        parts.push_back(fmt::format("{} at {}", epsilon_text(point["epsilon"].get<double>()),
                                    text_of(point, "delta")));
  return fmt::format("{}", fmt::join(parts, "; "));
}

/// For a table cell or a line of Markdown: no markup, no HTML, no line break.
std::string plain(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '&': out += "&amp;"; break;
      case '\n':
      case '\r': out += ' '; break;
      case '|':
      case '*':
      case '_':
      case '`':
      case '[':
      case ']':
      case '\\': out += '\\'; [[fallthrough]];
      default: out += c;
    }
  }
  return out;
}

/// The classes, and how their names came to be public, which the claim takes for granted.
void add_classes(const Json& card, Rows& rows) {
  if (!card.contains("public_facts")) return;
  const Json& facts = card["public_facts"];
  const std::vector<std::string> names = list_of(facts, "class_names");
  if (names.empty()) return;
  constexpr std::size_t kShown = 20;
  std::vector<std::string> shown(
      names.begin(), names.begin() + static_cast<std::ptrdiff_t>(std::min(names.size(), kShown)));
  if (names.size() > kShown) shown.push_back(fmt::format("and {} more", names.size() - kShown));
  rows.emplace_back("Classes", fmt::format("{}: {}", names.size(), fmt::join(shown, ", ")));
  const std::string from = text_of(facts, "class_names_from");
  rows.emplace_back("Class names come from",
                    from == "source"
                        ? "the private source: found there and accepted as public by its "
                          "holder (not covered: see below)"
                    : from == "numbers" ? "nowhere: classes are called by their numbers"
                    : from == "corpus"  ? "the lineage of a released corpus"
                                        : "the configuration, as public literals");
  const auto empty = list_of(facts, "classes_that_may_be_empty");
  if (!empty.empty())
    rows.emplace_back("Classes that may have had no image",
                      empty.front() == "*" ? "any" : fmt::format("{}", fmt::join(empty, ", ")));
}

constexpr const char* kNoClaim =
    "Nothing is claimed about privacy: no privacy card found beside the weights, as is usual for "
    "public ones, which were trained without private images. Of weights that were trained on "
    "private "
    "images this says that nothing protects them.";

}  // namespace

bool says_no_card(const Json& card) {
  const auto stages = card.find("stages");
  const bool counted = stages != card.end() && !stages->empty();
  return !counted && text_of(card, "plan_hash").empty() && text_of(card, "status") == "void" &&
         list_of(card, "reasons") == std::vector<std::string>{kNoCardReason};
}

CardBanner card_banner(const Json& card) {
  std::string headline = text_of(card, "statement");
  const auto reasons = list_of(card, "reasons");
  if (is_private(card)) return {ReportBanner::kPrivate, headline};
  if (says_no_card(card)) return {ReportBanner::kNoClaim, kNoClaim};
  if (!reasons.empty()) headline += fmt::format(" Why: {}.", fmt::join(reasons, "; "));
  return {
      text_of(card, "status") == "not_private" ? ReportBanner::kNotPrivate : ReportBanner::kVoid,
      headline};
}

Rows card_rows(const Json& card) {
  const std::string status = text_of(card, "status");
  Rows rows = {{"Status", status == "private"       ? "private"
                          : status == "not_private" ? "NOT PRIVATE"
                          : says_no_card(card)      ? "no claim"
                                                    : "VOID"}};
  const auto add = [&rows](const std::string& name, const std::string& value) {
    if (!value.empty()) rows.emplace_back(name, value);
  };
  if (is_private(card)) {
    add("ε", epsilon_text(card["epsilon"].get<double>()));
    add("ε, lower bound", text_of(card, "epsilon_lower"));
    add("δ", text_of(card, "delta"));
  }
  add("Unit of privacy", text_of(card, "unit"));
  add("Adjacency", text_of(card, "adjacency"));
  add("Sampling", text_of(card, "sampler"));
  add("Accountant", text_of(card, "accountant"));
  add("Rényi order", text_of(card, "order"));
  add("Grid of privacy losses", text_of(card, "grid"));
  if (card.contains("stages") && card["stages"].is_array())
    for (const Json& stage : card["stages"])
      add(fmt::format("Stage '{}'", text_of(stage, "name")), stage_text(stage));
  if (const std::string step = text_of(card, "checkpoint_step"); !step.empty())
    add("Checkpoint", fmt::format("after step {}; ε counts every planned step", step));
  add("Selection", text_of(card, "selection"));
  if (is_private(card)) {
    add("ε at other δ", curve_text(card));
    add("Most that an attacker can recognise", attack_text(card));
  }
  add("Noise", text_of(card, "noise"));
  add("Margin for rounding", text_of(card, "sensitivity_margin"));
  if (card.contains("networks")) {
    const Json& networks = card["networks"];
    add("Private", text_of(networks, "private"));
    add("Post-processing", text_of(networks, "post_processing"));
    if (const std::string hash = text_of(networks, "discriminator_sha256"); !hash.empty())
      add("Discriminator", fmt::format("released as well (SHA-256 {})", hash));
    else
      add("Discriminator", "not released");
  }
  add_classes(card, rows);
  add("Started from", start_text(card));
  add("Public data used", fmt::format("{}", fmt::join(list_of(card, "public_data"), "; ")));
  if (card.contains("code") && card["code"].is_object())
    add("Code", fmt::format("{} {} ({})", text_of(card["code"], "name"),
                            text_of(card["code"], "version"), text_of(card["code"], "commit")));
  add("Data manifest hash (keyed)", text_of(card, "data_manifest_hash"));
  add("Plan hash", text_of(card, "plan_hash"));
  add("Ledger head hash", text_of(card, "ledger_head_hash"));
  add("SHA-256 of the weights", text_of(card, "weights_sha256"));
  return rows;
}

std::vector<std::string> card_notes(const Json& card) {
  // Exceptions to a claim that is not made would read as if there were one.
  if (!is_private(card)) return {};
  std::vector<std::string> notes = list_of(card, "not_covered");
  // Cards of older versions say it in their public facts alone.
  if (card.contains("public_facts") &&
      text_of(card["public_facts"], "class_names_from") == "source" &&
      std::ranges::find(notes, kNamesFromSource) == notes.end())
    notes.push_back(kNamesFromSource);
  return notes;
}

std::string card_markdown(const Json& card) {
  const CardBanner banner = card_banner(card);
  std::string out = "## Privacy card\n\n";
  if (banner.banner == ReportBanner::kNotPrivate) out += "> # ⚠ NOT PRIVATE\n>\n> ";
  if (banner.banner == ReportBanner::kNoClaim) out += "> # NO CLAIM\n>\n> ";
  if (banner.banner == ReportBanner::kVoid) out += "> # ⚠ VOID\n>\n> ";
  out += plain(banner.headline) + "\n\n| | |\n|---|---|\n";
  for (const auto& [name, value] : card_rows(card))
    out += fmt::format("| {} | {} |\n", plain(name), plain(value));
  if (const std::string command = text_of(card, "recompute"); !command.empty() && is_private(card))
    out += fmt::format(
        "\n### Recompute\n\nε follows from the stages in the table alone. Anyone can compute it "
        "again from\nprivacy_card.json, which lies beside this page:\n\n```\n{}\n```\n",
        command);
  const auto notes = card_notes(card);
  if (!notes.empty()) out += "\n### Not covered\n\n";
  for (const std::string& note : notes) out += fmt::format("- {}\n", plain(note));
  return out;
}

}  // namespace sfumato
