#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/light/privacy_text.h"
#include "cli/light/program.h"
#include "cli/subcommands.h"
#include "sfumato/core/bound_text.h"
#include "sfumato/core/error.h"
#include "sfumato/core/plural.h"
#include "sfumato/core/printable.h"
#include "sfumato/run/run_verification.h"
#include "sfumato/run/store_uses.h"

namespace sfumato::cli {
namespace {

using Json = nlohmann::ordered_json;

struct LedgerOptions {
  std::string run;
  std::string head;
  std::string store;
  bool json = false;
};

/// Bytes that are no UTF-8 (paths may hold them) must not end the program.
std::string dumped(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

void make_printable(std::string& text) { text = printable(text); }

/// For a terminal: a ledger says what whoever wrote it liked.
RunVerification printable_texts(RunVerification run) {
  LedgerSummary& ledger = run.ledger;
  ledger.path = printable(ledger.path.string());
  for (std::string* text : {&ledger.run_id, &ledger.created, &ledger.version, &ledger.git_commit,
                            &ledger.plan_hash, &ledger.last_event})
    make_printable(*text);
  for (LedgerSession& session : ledger.sessions)
    for (std::string* text :
         {&session.noise_key_id, &session.started, &session.version, &session.git_commit})
      make_printable(*text);
  if (run.plan) make_printable(run.plan->unit);
  for (RunCheck& check : run.checks) {
    make_printable(check.detail);
    for (std::string& problem : check.problems) make_printable(problem);
  }
  return run;
}

Json finite(double value) { return std::isfinite(value) ? Json(value) : Json(); }

Json run_json(const RunVerification& run) {
  const LedgerSummary& ledger = run.ledger;
  Json sessions = Json::array();
  for (const LedgerSession& session : ledger.sessions)
    sessions.push_back({{"session", session.number},
                        {"started", session.started},
                        {"noise_key_id", session.noise_key_id},
                        {"insecure", session.insecure},
                        {"witness", session.witnessed},
                        {"charged_steps", session.charged_steps},
                        {"version", session.version},
                        {"git_commit", session.git_commit}});
  Json checks = Json::array();
  for (const RunCheck& check : run.checks)
    checks.push_back({{"name", check.name},
                      {"outcome", to_string(check.outcome)},
                      {"detail", check.detail},
                      {"problems", check.problems}});
  Json statement;
  if (run.statement) statement = to_json(*run.statement);
  return {{"verdict", run.verdict()},
          {"ledger", ledger.path.string()},
          {"run", ledger.run_id},
          {"created", ledger.created},
          {"plan_hash", ledger.plan_hash},
          {"plan", Json::parse(ledger.plan.empty() ? "null" : ledger.plan)},
          {"lines", ledger.lines},
          {"charged_steps", ledger.charged_steps},
          {"max_charged_steps", ledger.max_charged_steps},
          {"stage_charges", ledger.stage_charges},
          {"last_optimizer_step", ledger.last_optimizer_step},
          {"statement", statement},
          {"epsilon", run.statement ? finite(run.statement->epsilon) : Json()},
          {"epsilon_lower", run.statement && run.statement->epsilon_lower
                                ? finite(*run.statement->epsilon_lower)
                                : Json()},
          {"epsilon_planned", run.statement ? finite(run.epsilon_planned) : Json()},
          {"delta", run.plan ? Json(run.plan->delta) : Json()},
          {"accountant", run.plan ? Json(to_string(run.plan->accountant)) : Json()},
          {"sessions", sessions},
          {"recoveries", ledger.recoveries},
          {"forgotten_steps", ledger.forgotten_steps},
          {"torn_bytes", ledger.torn_bytes},
          {"head", ledger.head_hash},
          {"checks", checks},
          {"problems", run.problems()}};
}

std::string privacy_lines(const RunVerification& run) {
  if (!run.plan) return {};
  const MechanismPlan& plan = *run.plan;
  if (!run.statement) return "  privacy     NOT PRIVATE: trained without noise\n";
  std::string text = fmt::format(
      "  privacy     epsilon {} at delta {} so far, {} when all steps are taken\n"
      "              {} adjacency, unit: {}, {} sampling, {} accountant\n"
      "  mechanism   sample rate {}, noise multiplier {}, clip norm {}\n",
      epsilon_text(run.statement->epsilon), plan.delta, epsilon_text(run.epsilon_planned),
      to_string(plan.adjacency), plan.unit, plan.sampler, to_string(plan.accountant),
      plan.sample_rate, plan.noise_multiplier, plan.clip_norm_l2);
  if (plan.candidates > 1)
    text += fmt::format("              all of it {} times: one of {} candidates\n", plan.candidates,
                        plan.candidates);
  if (plan.selection)
    text += fmt::format(
        "  selection   {}: epsilon is that of the whole, of which only the best run leaves\n"
        "              runs: {}\n",
        to_text(*plan.selection), quantiles_text(SelectionLaw(*plan.selection)));
  for (const StagePlan& stage : plan.stages) {
    const auto charged = run.ledger.stage_charges.find(stage.name);
    text += fmt::format(
        "  stage       {}: {}, {}\n", printable(stage.name), to_text(stage.event),
        stage.declared
            ? "made elsewhere"
            : fmt::format("{} releases made",
                          charged == run.ledger.stage_charges.end() ? 0 : charged->second));
  }
  if (run.ledger.insecure())
    text += "  VOID        a session drew its noise from a test key: nothing is protected\n";
  return text;
}

std::string to_text(const RunVerification& run) {
  const LedgerSummary& ledger = run.ledger;
  std::string text = fmt::format("Ledger {}: {}\n", ledger.path.string(), run.verdict());
  if (ledger.lines > 0)
    text += fmt::format(
        "  run         {}, created {} by sfumato {} ({})\n"
        "  plan hash   {}\n{}"
        "  charged     {} of {} noisy steps; last optimizer step {}\n",
        ledger.run_id, ledger.created, ledger.version, ledger.git_commit, ledger.plan_hash,
        privacy_lines(run), ledger.charged_steps, ledger.max_charged_steps,
        ledger.last_optimizer_step);
  for (const LedgerSession& session : ledger.sessions)
    text +=
        fmt::format("  session {:<3} started {}, key {}, {}{}\n", session.number, session.started,
                    session.noise_key_id, counted(session.charged_steps, "step"),
                    session.witnessed ? "" : ", without a witness");
  if (ledger.recoveries > 0)
    text += fmt::format("  recovered   {} after a crash, each counted as a step\n",
                        counted(ledger.recoveries, "torn line"));
  if (!ledger.settled_heads.empty())
    text +=
        fmt::format("  older copy  went on {}; {} that it had forgotten, or may have, charged\n",
                    counted(static_cast<std::int64_t>(ledger.settled_heads.size()), "time"),
                    counted(ledger.forgotten_steps, "step"));
  if (ledger.torn_bytes > 0)
    text += fmt::format("  torn        {} bytes of an unfinished last line; a resume cuts them\n",
                        ledger.torn_bytes);
  text += fmt::format("  lines       {}; head {}\n", ledger.lines, ledger.head_hash);
  for (const std::string& problem : run.problems())
    text += fmt::format("  PROBLEM     {}\n", problem);
  return text;
}

std::string check_table(const RunVerification& run) {
  std::string text = fmt::format("{}: {}\n", run.ledger.path.string(), run.headline());
  if (run.statement)
    text += fmt::format(
        "  epsilon {}{} at delta {}, recomputed from the ledger ({} accountant)\n",
        epsilon_text(run.statement->epsilon),
        run.statement->epsilon_lower
            ? fmt::format(" (at least {})", lower_bound_text(*run.statement->epsilon_lower))
            : "",
        run.statement->delta, to_string(run.statement->accountant));
  for (const RunCheck& check : run.checks)
    text += check.outcome == RunCheck::Outcome::kNotChecked
                ? fmt::format("  {:<14} not checked: {}\n", check.name, check.detail)
                : fmt::format("  {:<14} {:<7} {}\n", check.name, to_string(check.outcome),
                              check.detail);
  return text;
}

bool is_store(const std::filesystem::path& path) {
  return std::filesystem::exists(path / "manifest.json") &&
         !std::filesystem::exists(path / "ledger.jsonl");
}

/// Runs that are counted within a sweep are in its row: how many a private selection has made is as
/// private as the store, and pages like this one get into reports.
std::vector<StoreRun> listed_runs(const StoreSummary& summary) {
  std::vector<StoreRun> runs;
  for (const StoreRun& run : summary.runs)
    if (!run.in_a_sweep) runs.push_back(run);
  return runs;
}

const char* kind_of(const SelectionUse& use) {
  return use.parts ? "tuning on a part" : "private selection";
}

Json store_json(const StoreSummary& summary) {
  Json runs = Json::array(), sweeps = Json::array();
  for (const StoreRun& run : listed_runs(summary))
    runs.push_back({{"run", run.witness.run_id},
                    {"place", run.witness.place},
                    {"part", run.part.empty() ? Json() : Json(run.part.string())},
                    {"updated", run.witness.updated},
                    {"stopped", run.witness.stopped},
                    {"insecure", run.witness.insecure},
                    {"charged_steps", run.charged_steps},
                    {"counted_from", run.counted_from},
                    {"plan_hash", run.witness.plan.hash()},
                    {"epsilon", finite(run.epsilon)},
                    {"delta", run.witness.plan.delta}});
  for (const SelectionUse& use : summary.selections)
    sweeps.push_back({{"sweep", use.sweep},
                      {"kind", kind_of(use)},
                      {"place", use.place},
                      {"epsilon", finite(use.epsilon)},
                      {"delta", use.delta}});
  return {{"runs", runs},
          {"sweeps", sweeps},
          {"together", summary.together ? to_json(*summary.together) : Json()},
          {"why_not_together", summary.why_not.empty() ? Json() : Json(summary.why_not)}};
}

std::string row_of(const StoreRun& run) {
  const std::string counted = run.counted_from == "plan"
                                  ? "all planned steps counted: it was last heard of running"
                                  : fmt::format("by its {}", run.counted_from);
  return fmt::format(
      "  {}  epsilon {} at delta {}{}; {} steps ({}), {}{}\n", printable(run.witness.run_id),
      epsilon_text(run.epsilon), run.witness.plan.delta, run.witness.insecure ? " VOID" : "",
      run.charged_steps, counted, printable(run.witness.place),
      run.part.empty() ? "" : fmt::format(", on the part {}", printable(run.part.string())));
}

std::string to_text(const StoreSummary& summary, const std::string& store) {
  const std::vector<StoreRun> runs = listed_runs(summary);
  const auto n = std::ssize(summary.selections);
  std::string text = fmt::format(
      "Record store {}: used by {}{}\n", printable(store), counted(std::ssize(runs), "private run"),
      n > 0 ? fmt::format(" and {}, whose runs are not listed", counted(n, "sweep")) : "");
  for (const StoreRun& run : runs) text += row_of(run);
  for (const SelectionUse& use : summary.selections)
    text +=
        fmt::format("  {}  epsilon {} at delta {}; {}, {}\n", printable(use.sweep.substr(0, 16)),
                    epsilon_text(use.epsilon), use.delta, kind_of(use), printable(use.place));
  if (summary.runs.empty() && n == 0) return text;
  text +=
      "What several runs on one store release adds up, for whoever sees all of it, or if one of "
      "them\nis chosen. ";
  if (summary.together)
    text += fmt::format("All of it together: epsilon {} at delta {} ({} adjacency, {}).\n",
                        epsilon_text(summary.together->epsilon), summary.together->delta,
                        to_string(summary.together->adjacency), printable(summary.unit));
  else
    text += fmt::format("A sum cannot be given: {}.\n", printable(summary.why_not));
  return text + "Runs without privacy leave no witness here.\n";
}

void show(const LedgerOptions& options) {
  if (is_store(options.run)) {
    const StoreSummary summary = summarize_store(options.run);
    fmt::print("{}", options.json ? dumped(store_json(summary)) : to_text(summary, options.run));
    return;
  }
  const RunVerification run = verify_run({options.run, options.head, {}, /*ledger_only=*/true});
  fmt::print("{}", options.json ? dumped(run_json(run)) : to_text(printable_texts(run)));
}

/// A release is verified with the run that it lies in.
void refuse_release(const std::string& place) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  if (fs::exists(fs::path(place) / "ledger.jsonl", ignored) ||
      !fs::exists(fs::path(place) / "privacy_card.json", ignored))
    return;
  const fs::path parent = (fs::absolute(place, ignored) / "").parent_path().parent_path();
  if (fs::exists(parent / "ledger.jsonl", ignored))
    throw UsageError(fmt::format(
        "'{}' is the release of a run, whose ledger lies above it: `sfumato ledger verify {}`",
        printable(place), printable(parent.string())));
  throw UsageError(fmt::format(
      "'{}' holds a privacy card and no ledger: `sfumato account --card {}` recomputes its claim; "
      "the ledger is in the run that made it",
      printable(place), printable(place)));
}

void verify(const LedgerOptions& options) {
  refuse_release(options.run);
  const RunVerification run =
      verify_run({options.run, options.head, options.store, /*ledger_only=*/false});
  fmt::print("{}", options.json ? dumped(run_json(run)) : check_table(printable_texts(run)));
  const std::vector<std::string> problems = printable_texts(run).problems();
  if (!problems.empty())
    throw PrivacyError(fmt::format("'{}' does not verify:\n  {}", printable(options.run),
                                   fmt::join(problems, "\n  ")));
}

void add_common(CLI::App& sub, LedgerOptions& options, const std::string& what) {
  sub.add_option("RUN", options.run, what)->required();
  sub.add_option("--head", options.head,
                 "SHA-256 of a ledger line noted elsewhere, which must be there");
  sub.add_flag("--json", options.json, "print one JSON object");
}

}  // namespace

void add_ledger(CLI::App& app) {
  auto options = std::make_shared<LedgerOptions>();
  CLI::App* sub = add_subcommand(app, "ledger");
  sub->require_subcommand(1);
  CLI::App* show_command = sub->add_subcommand(
      "show", "what was spent, and by whom; of a record store: by all its runs together");
  add_common(*show_command, *options, "run folder, ledger file or record store");
  show_command->callback([options] { show(*options); });
  CLI::App* verify_command = sub->add_subcommand(
      "verify",
      "recompute epsilon from the ledger alone and compare it with card, weights, checkpoints and "
      "the record store's witness; exit code 4 if anything was tampered with");
  add_common(*verify_command, *options, "run folder or ledger file");
  verify_command->add_option("--store", options->store,
                             "record store of the run (default: data.store of its config.yaml)");
  verify_command->callback([options] { verify(*options); });
}

}  // namespace sfumato::cli
