// How a privacy card reads: banner, rows, Markdown.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

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

std::string stage_text(const Json& stage) {
  return fmt::format(
      "{}: sampling rate {}, noise multiplier {}, {} steps charged of {} planned, clip norm {} "
      "({}), "
      "expected batch {}",
      text_of(stage, "mechanism"), text_of(stage, "sample_rate"),
      text_of(stage, "noise_multiplier"), text_of(stage, "steps_charged"),
      text_of(stage, "steps_planned"), text_of(stage, "clip_norm_l2"), text_of(stage, "clipping"),
      text_of(stage, "expected_batch_size"));
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

}  // namespace

CardBanner card_banner(const Json& card) {
  std::string headline = text_of(card, "statement");
  const auto reasons = list_of(card, "reasons");
  if (is_private(card)) return {ReportBanner::kPrivate, headline};
  if (!reasons.empty()) headline += fmt::format(" Why: {}.", fmt::join(reasons, "; "));
  return {
      text_of(card, "status") == "not_private" ? ReportBanner::kNotPrivate : ReportBanner::kVoid,
      headline};
}

Rows card_rows(const Json& card) {
  const std::string status = text_of(card, "status");
  Rows rows = {{"Status", status == "private"       ? "private"
                          : status == "not_private" ? "NOT PRIVATE"
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
  if (card.contains("stages") && card["stages"].is_array())
    for (const Json& stage : card["stages"])
      add(fmt::format("Stage '{}'", text_of(stage, "name")), stage_text(stage));
  add("Noise", text_of(card, "noise"));
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
  return is_private(card) ? list_of(card, "not_covered") : std::vector<std::string>();
}

std::string card_markdown(const Json& card) {
  const CardBanner banner = card_banner(card);
  std::string out = "## Privacy card\n\n";
  if (banner.banner == ReportBanner::kNotPrivate) out += "> # ⚠ NOT PRIVATE\n>\n> ";
  if (banner.banner == ReportBanner::kVoid) out += "> # ⚠ VOID\n>\n> ";
  out += plain(banner.headline) + "\n\n| | |\n|---|---|\n";
  for (const auto& [name, value] : card_rows(card))
    out += fmt::format("| {} | {} |\n", plain(name), plain(value));
  const auto notes = card_notes(card);
  if (!notes.empty()) out += "\n### Not covered\n\n";
  for (const std::string& note : notes) out += fmt::format("- {}\n", plain(note));
  return out;
}

}  // namespace sfumato
