#include "sfumato/sweep/sweep_runner.h"

#include <fmt/format.h>

#include <csignal>
#include <list>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/log.h"
#include "sfumato/core/printable.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/core/text.h"
#include "sfumato/data/record_store.h"
#include "sfumato/io/json_file.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/sweep/planned_cost.h"
#include "sfumato/sweep/run_lock.h"
#include "sfumato/sweep/sweep_state.h"
#include "sweep/child_process.h"
#include "sweep/run_commands.h"
#include "sweep/selection_silence.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kLook{50};  // how often children are looked at
constexpr int kDataStatus = static_cast<int>(ErrorKind::kData);

/// A run that this launcher works on.
struct Work {
  const SweepRun* run;
  RunLock lock;
  std::vector<RunCommand> commands;
  std::size_t at = 0;
  ChildProcess process;
  bool again = false;  ///< it failed before
};

/// To be drawn, and bad, is no reason for another draw: nothing, which is the worst, for what is no
/// number the second time either. By itself, since g++ 12 may write the result of a call that
/// throws into what the result is assigned to.
std::optional<double> score_or_worst(const std::vector<RunCommand>& commands) {
  try {
    return score_of(commands);
  } catch (const DataError&) {
    return std::nullopt;
  }
}

class SweepRunner {
 public:
  SweepRunner(const SweepPlan& plan, std::span<const SweepRun> runs, const RunnerOptions& options)
      : plan_(plan), options_(options) {
    for (const SweepRun& run : runs)
      if (run.index % options.of == options.task) waiting_.push_back(&run);
  }

  RunnerResult run() {
    try {
      while (step()) std::this_thread::sleep_for(kLook);
    } catch (const Error&) {
      stop_work();  // at a step boundary, so that nothing that was charged is lost
      throw;
    }
    return result_;
  }

 private:
  /// False at the end.
  bool step() {
    reap();
    beat();
    if (stop_requested()) {
      tell_stop();
      if (work_.empty()) throw Interrupted("stopped; the same command goes on");
    } else {
      while (std::ssize(work_) < options_.jobs && start_next()) {
      }
    }
    return !work_.empty() || (!waiting_.empty() && !stop_requested());
  }

  /// Starts the next run that nobody works on; false where there is none.
  bool start_next() {
    while (!waiting_.empty()) {
      const SweepRun& run = *waiting_.front();
      waiting_.pop_front();
      if (start(run)) return true;
    }
    return false;
  }

  bool start(const SweepRun& run) {
    auto lock = RunLock::take(locks_folder(plan_), run.name(), options_.stale_after);
    if (!lock) {
      const bool done = fs::exists(places_of(plan_, run).done);
      ++(done ? result_.done : result_.elsewhere);
      return false;
    }
    // Only now: before, somebody else may have finished it.
    const RunState state = state_of(plan_, run, options_.stale_after);
    const fs::path failed = places_of(plan_, run).failed;
    if (state.stage == RunState::Stage::kDone) {
      ++result_.done;
      return false;
    }
    if (fs::exists(failed) && !options_.again) {
      fail(run, read_json(failed).value("status", 1), read_json(failed).value("reason", "unknown"));
      return false;
    }
    check_store();
    std::error_code ignored;
    const bool again = fs::remove(failed, ignored);
    std::vector<RunCommand> commands = commands_of(plan_, run, total(), options_);
    ChildProcess process = start_command(run, commands.front(), lock->descriptor());
    work_.push_back({&run, std::move(*lock), std::move(commands), 0, std::move(process), again});
    say(fmt::format("{} started: {}", run.name(), to_text(run.assignments)));
    return true;
  }

  /// Found once, since many runs take a while to account for.
  const std::optional<SweepTotal>& total() {
    if (!total_) total_ = sweep_total(plan_);
    return *total_;
  }

  ChildProcess start_command(const SweepRun& run, const RunCommand& command, int lock) {
    const fs::path log = places_of(plan_, run).log;
    std::error_code ignored;
    if (!command.output.empty()) fs::remove(command.output, ignored);  // of an earlier attempt
    return {command.words, command.output.empty() ? log : command.output, log, lock};
  }

  /// Of another store the results would not be comparable, and the plan's promise not that of the
  /// runs.
  void check_store() const {
    const RecordStore store = RecordStore::open(plan_.store());
    if (store.manifest_hash() != plan_.common.at("manifest_hash"))
      throw DataError(
          fmt::format("the record store '{}' has changed since the sweep was planned; runs on both "
                      "would not be "
                      "of one sweep. Put the store back, or make a sweep of another name",
                      plan_.store().string()));
  }

  void reap() {
    for (auto work = work_.begin(); work != work_.end();) {
      const std::optional<int> status = work->process.ended();
      if (!status || (*status == 0 && goes_on(*work))) {
        ++work;
        continue;
      }
      if (*status == 0)
        finish(*work);
      else
        note_end(*work, *status);
      work = work_.erase(work);
    }
  }

  /// Starts the next command of a run, if there is one; not once a stop was asked for.
  bool goes_on(Work& work) {
    if (work.at + 1 == work.commands.size() || stop_requested()) return false;
    work.process = start_command(*work.run, work.commands[++work.at], work.lock.descriptor());
    return true;
  }

  void finish(const Work& work) {
    if (work.at + 1 < work.commands.size()) return;  // stopped between two commands
    if (selects() && work.again) return end_as_done(*work.run, score_or_worst(work.commands));
    try {
      end_as_done(*work.run, score_of(work.commands));
    } catch (const DataError& error) {
      note_failure(*work.run, kDataStatus, error.what());
    }
  }

  /// A selection's run without a score is the worst.
  void end_as_done(const SweepRun& run, std::optional<double> score) {
    try {
      mark_done(plan_, run, score);
    } catch (const DataError& error) {
      return note_failure(run, kDataStatus, error.what());
    }
    ++result_.done;
    say(fmt::format("{} done", run.name()));
  }

  /// Whether a selection's run that failed is over all the same, since nothing of it can be trained
  /// any more: weights that are not finite, say. What is said of it gets a second chance.
  bool is_over(const Work& work) const {
    if (!selects() || (work.at > 0 && !work.again)) return false;
    const fs::path ledger = places_of(plan_, *work.run).run / "ledger.jsonl";
    if (!fs::exists(ledger)) return false;
    const LedgerSummary found = verify_ledger(ledger);
    return found.charged_steps >= found.max_charged_steps;
  }

  void note_end(const Work& work, int status) {
    const SweepRun& run = *work.run;
    const RunCommand& command = work.commands[work.at];
    if (status == static_cast<int>(ErrorKind::kInterrupted)) {
      ++result_.open;
      return;
    }
    if (status < 0) {  // nobody here sent it: memory ran out, say
      ++result_.open;
      warn(fmt::format("{}: {} was ended by signal {}; sweep run goes on with it", run.name(),
                       command.what, -status));
      return;
    }
    if (is_over(work)) return end_as_done(run, std::nullopt);
    note_failure(run, status,
                 fmt::format("{} ended with status {}: {}", command.what, status,
                             last_line(places_of(plan_, run).log)));
  }

  void note_failure(const SweepRun& run, int status, const std::string& reason) {
    write_json_atomic(places_of(plan_, run).failed,
                      nlohmann::ordered_json{{"status", status}, {"reason", reason}}, 2, 0600);
    fail(run, status, reason);
  }

  void fail(const SweepRun& run, int status, const std::string& reason) {
    if (result_.failed.empty()) result_.first_failure = status;
    result_.failed.push_back(printable(fmt::format("{}: {}", run.name(), reason)));
    say(result_.failed.back());
  }

  void beat() {
    if (Clock::now() - last_beat_ < options_.beat_every) return;
    last_beat_ = Clock::now();
    for (Work& work : work_)
      if (!work.lock.beat()) {
        work.process.signal(SIGKILL);  // its ledger is another's by now
        warn(fmt::format(
            "{}: another launcher has taken it over, having heard nothing for {} s; it is ended "
            "here",
            work.run->name(), options_.stale_after.count()));
      }
  }

  /// Ours hear SIGUSR1, which never counts as a second signal that would end them at once (Slurm
  /// sends a first to all), and srun hands it on; others may know SIGTERM alone.
  void tell_stop() {
    if (std::exchange(told_, true)) return;
    const bool direct =
        options_.launch.empty() || fs::path(options_.launch.front()).filename() == "srun";
    for (const Work& work : work_)
      work.process.signal(direct && work.commands[work.at].is_ours ? SIGUSR1 : SIGTERM);
  }

  void stop_work() {
    tell_stop();
    for (Work& work : work_)
      while (!work.process.ended()) std::this_thread::sleep_for(kLook);
  }

  bool selects() const { return plan_.purpose() == SweepPurpose::kPrivateSelection; }

  /// Of a selection nothing is said that would tell how many runs there are.
  void say(const std::string& message) const {
    if (!selects()) log_info(message);
  }
  void warn(const std::string& message) const {
    if (!selects()) log_warning(message);
  }

  const SweepPlan& plan_;
  const RunnerOptions& options_;
  std::list<const SweepRun*> waiting_;
  std::list<Work> work_;
  std::optional<std::optional<SweepTotal>> total_;
  RunnerResult result_;
  Clock::time_point last_beat_{};
  bool told_ = false;
};

}  // namespace

RunnerResult run_sweep(const SweepPlan& plan, std::span<const SweepRun> runs,
                       const RunnerOptions& options) {
  return naming_no_run(plan, runs, [&] { return SweepRunner(plan, runs, options).run(); });
}

}  // namespace sfumato
