#include "sfumato/sweep/selection_runs.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/infinity.h"
#include "sfumato/core/log.h"
#include "sfumato/core/sha256.h"
#include "sfumato/core/text.h"
#include "sfumato/io/json_file.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/privacy/secure_random.h"
#include "sfumato/privacy/selection.h"
#include "sfumato/run/checkpoint.h"
#include "sfumato/run/run_directory.h"
#include "sfumato/run/selection_mark.h"
#include "sfumato/run/store_notes.h"
#include "sfumato/run/witness.h"
#include "sfumato/sweep/planned_cost.h"
#include "sfumato/sweep/run_lock.h"
#include "sfumato/sweep/sweep_state.h"
#include "sweep/child_process.h"
#include "sweep/run_commands.h"
#include "sweep/selection_silence.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kChoice = "choice";  // the lock of whoever chooses

fs::path draw_file(const SweepPlan& plan) { return plan.private_folder() / "draw.json"; }

/// Uniform in 0 ... below - 1, without the bias of a remainder.
std::uint64_t uniform(ChaChaStream& random, std::uint64_t below) {
  const std::uint64_t most = UINT64_MAX - UINT64_MAX % below;
  std::uint64_t word = random.next();
  while (word >= most) word = random.next();
  return word % below;
}

Json new_draw(const SweepPlan& plan) {
  const SecureKey key = SecureKey::generate();
  ChaChaStream random(key, StreamDomain::kSideStatistic, 0);
  const std::int64_t number = draw_runs(SelectionLaw(plan.selection()), random);
  Json runs = Json::array();
  for (std::int64_t i = 0; i < number; ++i)
    runs.push_back({{"point", uniform(random, plan.runs.size())},
                    {"seed", uniform(random, std::uint64_t{1} << 31)}});
  return {{"plan", plan.hash}, {"runs", runs}};
}

/// Keeps the draw unless there is one already: of several launchers one draws.
void draw_once(const SweepPlan& plan) {
  const fs::path file = draw_file(plan);
  if (fs::exists(file)) return;
  Json draw = new_draw(plan);
  draw["sha256"] = sha256_hex(draw.dump());
  const fs::path temporary = plan.private_folder() / fmt::format(".{}.draw", random_hex(8));
  write_json_atomic(temporary, draw, -1, 0600);
  const bool made = ::link(temporary.c_str(), file.c_str()) == 0 || errno == EEXIST;
  std::error_code ignored;
  fs::remove(temporary, ignored);
  if (!made)
    throw DataError(fmt::format("'{}' cannot be made; keep sweeps on a file system that has links",
                                file.string()));
  fsync_path(plan.private_folder());
}

[[noreturn]] void refuse_draw(const SweepPlan& plan, const std::string& defect) {
  throw DataError(
      fmt::format("'{}' {}: how many runs there are was drawn once and for all; put the "
                  "file back as it was",
                  draw_file(plan).string(), defect));
}

/// All epsilons of its runs are that of the whole; the grid's points share one mechanism.
SelectionUse use_of(const SweepPlan& plan, std::int64_t runs, const std::string& draw) {
  const PlannedCost cost = planned_cost(*plan.runs.front().config(), plan.records_per_unit());
  return {.sweep = plan.hash,
          .place = fs::absolute(plan.private_folder() / "runs").lexically_normal().string(),
          .runs = runs,
          .draw = draw,
          .epsilon = cost.epsilon,
          .delta = cost.delta,
          .adjacency = cost.adjacency,
          .unit = plan.unit(),
          .records_per_unit = plan.records_per_unit(),
          .parts = std::nullopt};
}

LedgerSummary ledger_of(const SweepPlan& plan, const SweepRun& run) {
  return verify_ledger(places_of(plan, run).run / "ledger.jsonl");
}

bool same_place(const fs::path& one, const fs::path& other) {
  std::error_code ignored;
  return fs::weakly_canonical(one, ignored) == fs::weakly_canonical(other, ignored);
}

/// Every run that ever used the store under this selection's place is one of those that were drawn:
/// one that was taken away and trained again would be a draw more than the law counts.
void check_none_drawn_twice(const SweepPlan& plan, const std::vector<SweepRun>& runs) {
  // Witnesses first: each is written after its ledger, also by launchers that work just now.
  std::vector<Witness> known = read_witnesses(plan.store());
  std::erase_if(known, [&](const Witness& witness) {
    return !same_place(fs::path(witness.place).parent_path(), plan.private_folder() / "runs");
  });
  if (known.empty()) return;
  std::set<std::string> drawn;
  for (const SweepRun& run : runs)
    if (fs::exists(places_of(plan, run).run / "ledger.jsonl"))
      drawn.insert(ledger_of(plan, run).run_id);
  for (const Witness& witness : known)
    if (!drawn.contains(witness.run_id))
      throw PrivacyError(fmt::format(
          "'{}' remembers run {} of this selection, and no run of it has that ledger: a run was "
          "taken away or trained a second time, which is a draw more than the law counts. Put the "
          "run back as it was; else nothing of this selection may leave: plan a sweep of another "
          "name, which counts besides",
          witness.file.string(), witness.run_id));
}

/// The accounting is of runs that all have one plan.
void check_alike(const SweepPlan& plan, const std::vector<SweepRun>& runs) {
  const auto plan_in = [&](const SweepRun& run) {
    return MechanismPlan::from_json(nlohmann::json::parse(ledger_of(plan, run).plan));
  };
  const MechanismPlan first = plan_in(runs.front());
  for (const SweepRun& run : runs)
    if (const MechanismPlan other = plan_in(run); other.hash() != first.hash())
      throw PrivacyError(fmt::format(
          "runs of the selection have different mechanisms, of which no best may be chosen: {}",
          first.describe_difference(other)));
}

/// A command that prints no number at all is one that does not work: whoever wrote it is to know
/// before a coin chooses. Scoring again is no new draw.
void check_any_score(const SweepPlan& plan, const std::vector<SweepRun>& runs,
                     const RunnerOptions& options) {
  for (const SweepRun& run : runs)
    if (state_of(plan, run, options.stale_after).score) return;
  if (!options.again)
    throw DataError(fmt::format(
        "no run of the selection has a score, so that none is chosen: none could be trained to its "
        "end, or the score's command printed no number; '{}' says which. sweep run --again lets a "
        "coin choose among them",
        (plan.private_folder() / "logs").string()));
  log_warning("no run of the selection has a score: a coin chooses among them");
}

const SweepRun& best_of(const SweepPlan& plan, const std::vector<SweepRun>& runs,
                        std::chrono::seconds stale) {
  const SecureKey key = SecureKey::generate();
  ChaChaStream coin(key, StreamDomain::kSideStatistic, 1);
  const SweepRun* best = nullptr;
  double best_score = 0;
  std::uint64_t equal = 0;
  for (const SweepRun& run : runs) {
    const double score = state_of(plan, run, stale).score.value_or(-kInfinity);
    if (best == nullptr || score > best_score) {
      best = &run;
      best_score = score;
      equal = 1;
    } else if (score == best_score && uniform(coin, ++equal) == 0) {
      best = &run;
    }
  }
  return *best;
}

const SweepRun* marked_of(const SweepPlan& plan, const std::vector<SweepRun>& runs) {
  for (const SweepRun& run : runs)
    if (read_selection_mark(places_of(plan, run).run)) return &run;
  return nullptr;
}

const SweepRun& choose(const SweepPlan& plan, const std::vector<SweepRun>& runs,
                       const RunnerOptions& options) {
  if (const SweepRun* winner = marked_of(plan, runs)) return *winner;
  check_alike(plan, runs);
  check_none_drawn_twice(plan, runs);
  check_any_score(plan, runs, options);
  std::vector<std::string> heads;
  for (const SweepRun& run : runs)
    heads.push_back(state_of(plan, run, options.stale_after).ledger_head);
  const SweepRun& winner = best_of(plan, runs, options.stale_after);
  write_selection_mark(
      places_of(plan, winner).run,
      {plan.hash, binding_of(plan, winner), state_of(plan, winner, options.stale_after).ledger_head,
       runs_sha256(heads)});
  return winner;
}

/// Whether a run has nothing that it could ever release: every step is charged, and its weights
/// were not finite before the first checkpoint, say.
bool has_nothing(const SweepPlan& plan, const SweepRun& run) {
  const fs::path place = places_of(plan, run).run;
  std::error_code ignored;
  if (fs::exists(selection_candidate(place), ignored)) return false;
  const auto steps = checkpoint_steps(RunDirectory::look_at(place).checkpoints());
  if (!steps.empty() && steps.back() > 0) return false;
  const LedgerSummary found = ledger_of(plan, run);
  return found.charged_steps >= found.max_charged_steps;
}

/// That the best of a selection is none is its outcome, as a release would be.
[[noreturn]] void end_without_release(const SweepPlan& plan) {
  write_file_atomic(plan.no_release(), "no run could be released\n");
  throw DataError(fmt::format(
      "the selection is over, and no run could be released: the winner has no weights, since it "
      "was "
      "ended, by weights that were not finite, say, before its first checkpoint. What it cost "
      "stays "
      "spent. Plan a sweep of another name, with smaller learning rates; '{}' says more",
      (plan.private_folder() / "logs").string()));
}

/// Training that has no step left writes what the winner releases.
void write_winners_release(const SweepPlan& plan, const SweepRun& winner, const RunLock& lock,
                           const RunnerOptions& options) {
  const fs::path log = places_of(plan, winner).log;
  ChildProcess training(commands_of(plan, winner, std::nullopt, options).front().words, log, log,
                        lock.descriptor());
  std::optional<int> status;
  while (!(status = training.ended())) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  if (*status > 0 && has_nothing(plan, winner)) end_without_release(plan);
  if (*status != 0)
    throw DataError(fmt::format("the winner of the selection did not release (status {}): {}",
                                *status, last_line(log)));
  const fs::path release = places_of(plan, winner).run / "release";
  if (!fs::exists(release / "privacy_card.json"))
    throw DataError("the winner of the selection left no release");
  const fs::path copy = plan.folder / fmt::format(".{}.release", random_hex(8));
  fs::copy(release, copy, fs::copy_options::recursive);
  fs::rename(copy, plan.release());
}

}  // namespace

std::vector<SweepRun> drawn_runs(const SweepPlan& plan) {
  draw_once(plan);
  Json draw = Json::parse(read_file(draw_file(plan)), nullptr, /*allow_exceptions=*/false);
  std::vector<SweepRun> runs;
  try {
    const std::string seal = draw.at("sha256").get<std::string>();
    draw.erase("sha256");
    if (sha256_hex(draw.dump()) != seal) refuse_draw(plan, "was edited");
    if (draw.at("plan") != plan.hash) refuse_draw(plan, "is of another plan");
    const SettingValues base = plan.common.at("base").get<SettingValues>();
    for (const Json& drawn : draw.at("runs")) {
      std::vector<Assignment> assignments =
          plan.runs.at(drawn.at("point").get<std::size_t>()).assignments;
      assignments.push_back({"run.seed", drawn.at("seed").dump()});
      runs.push_back(sweep_run(std::ssize(runs), base, std::move(assignments)));
    }
  } catch (const nlohmann::json::exception& error) {
    refuse_draw(plan, fmt::format("is damaged ({})", error.what()));
  }
  note_selection(plan.store(), use_of(plan, std::ssize(runs), sha256_hex(draw.dump())));
  naming_no_run(plan, runs, [&] { check_none_drawn_twice(plan, runs); });
  return runs;
}

bool choose_winner(const SweepPlan& plan, const std::vector<SweepRun>& runs,
                   const RunnerOptions& options) {
  if (selection_is_over(plan)) return true;
  return naming_no_run(plan, runs, [&] {
    for (const SweepRun& run : runs)
      if (state_of(plan, run, options.stale_after).stage != RunState::Stage::kDone) return false;
    const auto lock = RunLock::take(locks_folder(plan), kChoice, options.stale_after);
    if (!lock || selection_is_over(plan)) return selection_is_over(plan);
    write_winners_release(plan, choose(plan, runs, options), *lock, options);
    return true;
  });
}

bool selection_is_over(const SweepPlan& plan) {
  return fs::exists(plan.release()) || fs::exists(plan.no_release());
}

std::string selection_end(const SweepPlan& plan) {
  return fs::exists(plan.release()) ? plan.release().string() : "no run could be released";
}

}  // namespace sfumato
