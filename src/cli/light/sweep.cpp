#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/light/program.h"
#include "cli/subcommands.h"
#include "sfumato/core/bound_text.h"
#include "sfumato/core/error.h"
#include "sfumato/core/place.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/core/text.h"
#include "sfumato/privacy/selection.h"
#include "sfumato/sweep/job_scripts.h"
#include "sfumato/sweep/planned_cost.h"
#include "sfumato/sweep/selection_runs.h"
#include "sfumato/sweep/store_split.h"
#include "sfumato/sweep/sweep_report.h"
#include "sfumato/sweep/sweep_runner.h"
#include "sfumato/sweep/sweep_state.h"

namespace sfumato::cli {
namespace {

using Json = nlohmann::ordered_json;

struct SweepOptions {
  std::string file;
  bool json = false;
  RunnerOptions runner;
  std::string launch;
  std::string out;
  ClusterJob job;
  double stale_minutes = 10;
  std::chrono::seconds stale_after() const {
    return std::chrono::seconds(std::llround(stale_minutes * 60));
  }
};

/// The program that this command line called, so that its runs are of the same build.
std::filesystem::path program_of_runs() {
  std::filesystem::path self = this_program();
  if (self.empty()) throw DeviceError("where this program lies is not known");
  return self;
}

Json number_or_null(double value) { return std::isfinite(value) ? Json(value) : Json(); }

void print_plan_json(const SweepPlan& plan, const std::vector<PlannedCost>& costs,
                     const PlannedCost& all) {
  Json runs = Json::array();
  for (std::size_t i = 0; i < plan.runs.size(); ++i)
    runs.push_back({{"folder", places_of(plan, plan.runs[i]).run.string()},
                    {"set", to_text(plan.runs[i].assignments)},
                    {"epsilon", number_or_null(costs[i].epsilon)},
                    {"delta", costs[i].delta}});
  fmt::print("{}\n", Json{{"plan", plan.file().string()},
                          {"sha256", plan.hash},
                          {"purpose", to_string(plan.purpose())},
                          {"runs", runs},
                          {"epsilon", number_or_null(all.epsilon)},
                          {"delta", all.delta}}
                         .dump(2));
}

/// What all runs cost together, in words.
std::string cost_text(const SweepPlan& plan, const PlannedCost& all) {
  if (plan.purpose() == SweepPurpose::kPublicTuning)
    return fmt::format(
        "nothing is charged to private data: '{}' is public by the word of "
        "sweep.store_is_public",
        plan.store().string());
  if (!all.is_private) return "NOT PRIVATE: runs train without noise";
  if (plan.purpose() == SweepPurpose::kPrivateSelection)
    return fmt::format(
        "epsilon {} at delta {} for the whole selection, of which the best run alone leaves; its "
        "runs are drawn from the lines above, as many as the law says: {}",
        epsilon_text(all.epsilon), all.delta, quantiles_text(SelectionLaw(plan.selection())));
  std::string text =
      fmt::format("epsilon {} at delta {} for all runs together, each charged in full",
                  epsilon_text(all.epsilon), all.delta);
  if (plan.purpose() == SweepPurpose::kDisjointSplit)
    text +=
        fmt::format("; train the final run on '{}' alone, and the epsilon of both is the larger",
                    plan.common.at("final_store").get<std::string>());
  return text;
}

void run_plan(const SweepOptions& options) {
  const SweepPlan plan = open_sweep(options.file, /*may_freeze=*/true);
  const std::vector<PlannedCost> costs = run_costs(plan);
  const PlannedCost all = whole_cost(plan, costs);
  if (options.json) return print_plan_json(plan, costs, all);
  for (std::size_t i = 0; i < plan.runs.size(); ++i)
    fmt::print("{}  {}  {}\n", plan.runs[i].name(),
               costs[i].is_private
                   ? fmt::format("epsilon {}{}", epsilon_text(costs[i].epsilon),
                                 costs[i].noise_multiplier
                                     ? fmt::format(", noise {}", *costs[i].noise_multiplier)
                                     : "")
                   : "NOT PRIVATE",
               to_text(plan.runs[i].assignments));
  fmt::print("{} {} for {}; {}\nfrozen: {}\n", plan.runs.size(),
             plan.purpose() == SweepPurpose::kPrivateSelection ? "points" : "runs",
             to_string(plan.purpose()), cost_text(plan, all), plan.file().string());
  fmt::print(
      "time: unknown until a step is measured; for one run: sfumato plan --config {}\n"
      "  (all runs: {} such times, shared by --jobs and machines)\n",
      read_sweep_file(options.file).settings->sweep.base(),
      plan.purpose() == SweepPurpose::kPrivateSelection
          ? fmt::format("on average {}", plan.common.at("selection").at("mean_runs").dump())
          : std::to_string(plan.runs.size()));
}

std::vector<std::string> words_of(const std::string& text) {
  std::vector<std::string> words;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find(' ', begin), text.size());
    if (end > begin) words.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return words;
}

RunnerOptions runner_options(const SweepOptions& options) {
  RunnerOptions runner = options.runner;
  runner.program = program_of_runs();
  runner.launch = words_of(options.launch);
  runner.stale_after = options.stale_after();
  if (runner.task < 0 || runner.of < 1 || runner.task >= runner.of)
    throw UsageError(fmt::format("--task {} --of {}: tasks are numbered from 0 to one below --of",
                                 runner.task, runner.of));
  return runner;
}

/// Says nothing from which the number of its runs could be told.
void run_selection(const SweepPlan& plan, const SweepOptions& options,
                   const RunnerOptions& runner) {
  const std::vector<SweepRun> runs = drawn_runs(plan);
  const RunnerResult result = run_sweep(plan, runs, runner);
  if (!result.failed.empty())
    throw Error(ErrorKind::kData,
                fmt::format("runs of the selection failed, and nothing leaves before all are done; "
                            "'{}' says why. Once the cause is gone: sweep run --again",
                            (plan.private_folder() / "failed").string()));
  const bool over = choose_winner(plan, runs, runner);
  const bool released = over && std::filesystem::exists(plan.release());
  if (options.json)
    fmt::print("{}\n",
               Json{{"done", over}, {"release", released ? plan.release().string() : ""}}.dump(2));
  else if (over)
    fmt::print("{}: {}\n", released ? "the best run is released" : "over", selection_end(plan));
  else
    fmt::print("the selection goes on elsewhere, or with the next sweep run\n");
}

void run_run(const SweepOptions& options) {
  const RunnerOptions runner = runner_options(options);
  const SweepPlan plan = open_sweep(options.file, /*may_freeze=*/true);
  install_stop_signals();
  if (plan.purpose() == SweepPurpose::kPrivateSelection)
    return run_selection(plan, options, runner);
  if (plan.purpose() == SweepPurpose::kDisjointSplit) note_tuning(plan);
  const RunnerResult result = run_sweep(plan, plan.runs, runner);
  if (options.json)
    fmt::print("{}\n", Json{{"done", result.done},
                            {"failed", result.failed},
                            {"elsewhere", result.elsewhere},
                            {"open", result.open}}
                           .dump(2));
  else
    fmt::print("{} done, {} failed, {} worked on elsewhere, {} left open\n", result.done,
               result.failed.size(), result.elsewhere, result.open);
  if (result.failed.empty()) return;
  const bool known = result.first_failure >= 2 && result.first_failure <= 5;
  throw Error(known ? static_cast<ErrorKind>(result.first_failure) : ErrorKind::kDevice,
              fmt::format("{} of the runs failed:\n  {}\nonce the cause is gone, sweep run --again "
                          "takes them up",
                          result.failed.size(), fmt::join(result.failed, "\n  ")));
}

Json state_json(const SweepRun& run, const RunState& state) {
  return {{"folder", run.name()},
          {"set", to_text(run.assignments)},
          {"state", to_string(state.stage)},
          {"detail", state.detail},
          {"charged_steps", state.charged_steps},
          {"steps", state.steps},
          {"epsilon", state.epsilon ? Json(*state.epsilon) : Json()},
          {"score", state.score ? Json(*state.score) : Json()}};
}

void run_status(const SweepOptions& options) {
  const SweepPlan plan = open_sweep(options.file, /*may_freeze=*/false);
  if (plan.purpose() == SweepPurpose::kPrivateSelection) {
    const bool over = selection_is_over(plan);
    fmt::print("{}\n", options.json ? Json{{"plan", plan.file().string()}, {"done", over}}.dump(2)
                       : over       ? fmt::format("over: {}", selection_end(plan))
                                    : "not over; nothing else of a private selection may be seen");
    return;
  }
  Json runs = Json::array();
  std::map<std::string, int> counts;
  for (const SweepRun& run : plan.runs) {
    const RunState state = state_of(plan, run, options.stale_after());
    ++counts[to_string(state.stage)];
    runs.push_back(state_json(run, state));
    if (!options.json)
      fmt::print("{}  {:8}  {} of {} steps charged  {}{}\n", run.name(), to_string(state.stage),
                 state.charged_steps, state.steps, to_text(run.assignments),
                 state.detail.empty() ? "" : fmt::format("  ({})", state.detail));
  }
  if (options.json)
    fmt::print("{}\n",
               Json{{"plan", plan.file().string()}, {"counts", counts}, {"runs", runs}}.dump(2));
  else
    fmt::print("{} runs: {} done, {} running, {} failed, {} open\n", plan.runs.size(),
               counts["done"], counts["running"], counts["failed"], counts["open"]);
}

void run_report(const SweepOptions& options) {
  const SweepPlan plan = open_sweep(options.file, /*may_freeze=*/false);
  const std::filesystem::path folder =
      options.out.empty() ? plan.folder / "report" : std::filesystem::path(options.out);
  write_sweep_report(plan, folder, options.stale_after());
  const std::string page = (folder / "report.html").string();
  fmt::print("{}\n", options.json
                         ? Json{{"report", page}, {"csv", (folder / "runs.csv").string()}}.dump(2)
                         : "report: " + page);
}

/// Freezes the plan as well: tasks that start at the same time find one.
void run_slurm(const SweepOptions& options) {
  const SweepPlan plan = open_sweep(options.file, /*may_freeze=*/true);
  ClusterJob job = options.job;
  job.file = options.file;
  if (job.program.empty()) job.program = program_of_runs().string();
  fmt::print("{}", slurm_script(plan, job));
}

void run_kubernetes(const SweepOptions& options) {
  const SweepPlan plan = open_sweep(options.file, /*may_freeze=*/true);
  ClusterJob job = options.job;
  job.file = options.file;
  fmt::print("{}", kubernetes_job(plan, job));
}

void add_cluster_options(CLI::App& sub, SweepOptions& options) {
  sub.add_option("--tasks", options.job.tasks, "tasks that share the runs, all at a time")
      ->check(CLI::Range(1, 10'000))
      ->capture_default_str();
  sub.add_option("--ranks", options.job.ranks, "processes of each run")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
}

CLI::App* add_verb(CLI::App& sweep, SweepOptions& options, const char* name, const char* what) {
  CLI::App* sub = sweep.add_subcommand(name, what);
  sub->add_option("FILE", options.file, "the sweep's YAML file")->required();
  sub->add_flag("--json", options.json, "print one JSON object");
  return sub;
}

void add_stale(CLI::App& sub, SweepOptions& options) {
  sub.add_option("--stale-minutes", options.stale_minutes,
                 "a launcher of another machine that is silent for so long is taken for dead; on "
                 "this machine a dead one is known at once")
      ->check(CLI::Range(0.01, 1e6))
      ->capture_default_str();
}

}  // namespace

void add_sweep(CLI::App& app) {
  auto options = std::make_shared<SweepOptions>();
  CLI::App* sub = add_subcommand(app, "sweep");
  sub->require_subcommand(1);
  sub->footer([] { return "What a sweep's file may hold:\n\n" + documented_sweep_yaml(); });
  add_verb(*sub, *options, "plan", "expand the file into its runs, once; show what they cost")
      ->callback([options] { run_plan(*options); });
  CLI::App* run = add_verb(*sub, *options, "run",
                           "train what is not done yet; may be killed and "
                           "started anew, also on several machines");
  run->add_option("--jobs", options->runner.jobs, "runs at a time, which share the cores")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  run->add_option("--task", options->runner.task,
                  "of --of tasks, this one: takes every --of-th run");
  run->add_option("--of", options->runner.of, "tasks that share the runs");
  run->add_flag("--again", options->runner.again, "runs that failed, once more");
  run->add_option("--launch", options->launch,
                  "words before each training command, such as \"srun --ntasks 4\" for several "
                  "processes a run");
  add_stale(*run, *options);
  run->callback([options] { run_run(*options); });
  CLI::App* status = add_verb(*sub, *options, "status", "how far the runs are");
  add_stale(*status, *options);
  status->callback([options] { run_status(*options); });
  CLI::App* slurm = add_verb(*sub, *options, "slurm", "print an array job for sbatch");
  add_cluster_options(*slurm, *options);
  slurm->add_option("--program", options->job.program, "sfumato on the nodes (default: this one)");
  slurm->add_option("--option", options->job.options,
                    "a further option of sbatch, as --option=--partition=gpu");
  slurm->callback([options] { run_slurm(*options); });
  CLI::App* kubernetes =
      add_verb(*sub, *options, "kubernetes", "print an Indexed Job for kubectl apply");
  add_cluster_options(*kubernetes, *options);
  kubernetes->add_option("--image", options->job.image, "the container's image")->required();
  kubernetes->callback([options] { run_kubernetes(*options); });
  CLI::App* report =
      add_verb(*sub, *options, "report",
               "what may be seen of the runs: a page, a table, TensorBoard's HParams");
  report->add_option("--out", options->out, "folder for it (default: report/ of the sweep)");
  add_stale(*report, *options);
  report->callback([options] { run_report(*options); });
}

}  // namespace sfumato::cli
