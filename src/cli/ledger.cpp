#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/privacy_text.h"
#include "cli/subcommands.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/privacy/mechanism.h"

namespace sfumato::cli {
namespace {

struct LedgerOptions {
  std::string run;
  std::string head;
  bool json = false;
};

/// What the ledger proves about privacy; empty where it proves nothing.
struct Claim {
  std::optional<MechanismPlan> plan;
  double epsilon = 0;          ///< of the charged steps
  double epsilon_planned = 0;  ///< of all steps that may ever be charged
};

std::filesystem::path ledger_file(const std::string& run) {
  const std::filesystem::path path = run;
  if (!std::filesystem::exists(path))
    throw DataError(fmt::format("'{}' does not exist; name a run folder or its ledger", run));
  if (!std::filesystem::is_directory(path)) return path;
  if (!std::filesystem::exists(path / "ledger.jsonl"))
    throw DataError(fmt::format("'{}' holds no ledger.jsonl; is it the folder of a run?", run));
  return path / "ledger.jsonl";
}

/// The head that the privacy card beside the ledger noted, if there is one.
std::string head_on_card(const std::filesystem::path& ledger) {
  const std::filesystem::path card = ledger.parent_path() / "release" / "privacy_card.json";
  if (!std::filesystem::exists(card)) return {};
  const auto json = nlohmann::json::parse(read_file(card), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return {};
  const auto head = json.find("ledger_head_hash");
  return head != json.end() && head->is_string() ? head->get<std::string>() : std::string();
}

LedgerSummary examine(const LedgerOptions& options) {
  const std::filesystem::path path = ledger_file(options.run);
  return verify_ledger(path, options.head.empty() ? head_on_card(path) : options.head);
}

/// Recomputes epsilon from the frozen plan, and notes a plan that is not one.
Claim claim(LedgerSummary& ledger) {
  Claim result;
  if (ledger.lines == 0) return result;
  try {
    result.plan = MechanismPlan::from_json(nlohmann::json::parse(ledger.plan));
    result.epsilon = result.plan->epsilon_after(ledger.charged_steps);
    result.epsilon_planned = result.plan->epsilon_after(ledger.max_charged_steps);
  } catch (const Error& error) {
    result.plan.reset();
    ledger.problems.push_back(fmt::format("line 1: {}", error.what()));
    return result;
  }
  if (ledger.max_charged_steps > result.plan->steps)
    ledger.problems.push_back(fmt::format("line 1: allows {} charges, the plan only {} steps",
                                          ledger.max_charged_steps, result.plan->steps));
  return result;
}

std::string verdict(const LedgerSummary& ledger, const Claim& claim) {
  if (!ledger.problems.empty()) return "DAMAGED";
  if (claim.plan && !claim.plan->is_private) return "NOT PRIVATE";
  return ledger.insecure() ? "VOID" : "sound";
}

nlohmann::ordered_json to_json(const LedgerSummary& ledger, const Claim& claim) {
  using json = nlohmann::ordered_json;
  const auto finite = [](double value) { return std::isfinite(value) ? json(value) : json(); };
  json sessions = json::array();
  for (const LedgerSession& session : ledger.sessions)
    sessions.push_back({{"session", session.number},
                        {"started", session.started},
                        {"noise_key_id", session.noise_key_id},
                        {"insecure", session.insecure},
                        {"charged_steps", session.charged_steps},
                        {"version", session.version},
                        {"git_commit", session.git_commit}});
  json result = {{"verdict", verdict(ledger, claim)},
                 {"ledger", ledger.path.string()},
                 {"run", ledger.run_id},
                 {"created", ledger.created},
                 {"plan_hash", ledger.plan_hash},
                 {"plan", json::parse(ledger.plan.empty() ? "null" : ledger.plan)},
                 {"lines", ledger.lines},
                 {"charged_steps", ledger.charged_steps},
                 {"max_charged_steps", ledger.max_charged_steps},
                 {"last_optimizer_step", ledger.last_optimizer_step},
                 {"epsilon", claim.plan ? finite(claim.epsilon) : json()},
                 {"epsilon_planned", claim.plan ? finite(claim.epsilon_planned) : json()},
                 {"delta", claim.plan ? json(claim.plan->delta) : json()},
                 {"sessions", sessions},
                 {"recoveries", ledger.recoveries},
                 {"torn_bytes", ledger.torn_bytes},
                 {"head", ledger.head_hash},
                 {"problems", ledger.problems}};
  return result;
}

std::string privacy_lines(const LedgerSummary& ledger, const Claim& claim) {
  if (!claim.plan) return {};
  const MechanismPlan& plan = *claim.plan;
  if (!plan.is_private) return "  privacy     NOT PRIVATE: trained without noise\n";
  std::string text = fmt::format(
      "  privacy     epsilon {} at delta {} so far, {} when all steps are taken\n"
      "              {} adjacency, unit: {}, {} sampling, {} accountant\n"
      "  mechanism   sample rate {}, noise multiplier {}, clip norm {}\n",
      upper_bound_text(claim.epsilon), plan.delta, upper_bound_text(claim.epsilon_planned),
      to_string(plan.adjacency), plan.unit, plan.sampler, plan.accountant, plan.sample_rate,
      plan.noise_multiplier, plan.clip_norm_l2);
  if (ledger.insecure())
    text += "  VOID        a session drew its noise from a test key: nothing is protected\n";
  return text;
}

std::string to_text(const LedgerSummary& ledger, const Claim& claim) {
  std::string text = fmt::format("Ledger {}: {}\n", ledger.path.string(), verdict(ledger, claim));
  if (ledger.lines > 0)
    text += fmt::format(
        "  run         {}, created {} by sfumato {} ({})\n"
        "  plan hash   {}\n{}"
        "  charged     {} of {} noisy steps; last optimizer step {}\n",
        ledger.run_id, ledger.created, ledger.version, ledger.git_commit, ledger.plan_hash,
        privacy_lines(ledger, claim), ledger.charged_steps, ledger.max_charged_steps,
        ledger.last_optimizer_step);
  for (const LedgerSession& session : ledger.sessions)
    text += fmt::format("  session {:<3} started {}, key {}, {} steps\n", session.number,
                        session.started, session.noise_key_id, session.charged_steps);
  if (ledger.recoveries > 0)
    text += fmt::format("  recovered   {} torn line(s) after a crash, each counted as a step\n",
                        ledger.recoveries);
  if (ledger.torn_bytes > 0)
    text += fmt::format("  torn        {} bytes of an unfinished last line; a resume cuts them\n",
                        ledger.torn_bytes);
  text += fmt::format("  lines       {}; head {}\n", ledger.lines, ledger.head_hash);
  for (const std::string& problem : ledger.problems)
    text += fmt::format("  PROBLEM     {}\n", problem);
  return text;
}

void show(const LedgerOptions& options) {
  LedgerSummary ledger = examine(options);
  const Claim found = claim(ledger);
  if (options.json) {
    fmt::print("{}\n", to_json(ledger, found).dump(2));
  } else {
    fmt::print("{}", to_text(ledger, found));
  }
}

void verify(const LedgerOptions& options) {
  LedgerSummary ledger = examine(options);
  const Claim found = claim(ledger);
  if (options.json) {
    fmt::print("{}\n", to_json(ledger, found).dump(2));
  } else if (ledger.problems.empty()) {
    fmt::print("{}: {}; {} lines, {} charged steps, head {}\n", ledger.path.string(),
               verdict(ledger, found), ledger.lines, ledger.charged_steps, ledger.head_hash);
  }
  if (!ledger.problems.empty())
    throw PrivacyError(fmt::format("the ledger '{}' is damaged:\n  {}", ledger.path.string(),
                                   fmt::join(ledger.problems, "\n  ")));
}

void add_common(CLI::App& sub, LedgerOptions& options) {
  sub.add_option("RUN", options.run, "run folder or ledger file")->required();
  sub.add_option("--head", options.head,
                 "SHA-256 of a line noted elsewhere, which must be there (default: the one on the "
                 "run's privacy card)");
  sub.add_flag("--json", options.json, "print one JSON object");
}

}  // namespace

void add_ledger(CLI::App& app) {
  auto options = std::make_shared<LedgerOptions>();
  CLI::App* sub = app.add_subcommand("ledger", "the record of every noisy step of a run");
  sub->require_subcommand(1);
  CLI::App* show_command = sub->add_subcommand("show", "what was spent, and by whom");
  add_common(*show_command, *options);
  show_command->callback([options] { show(*options); });
  CLI::App* verify_command =
      sub->add_subcommand("verify", "check every line; exit code 4 if one was tampered with");
  add_common(*verify_command, *options);
  verify_command->callback([options] { verify(*options); });
}

}  // namespace sfumato::cli
