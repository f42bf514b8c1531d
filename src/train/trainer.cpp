#include "sfumato/train/trainer.h"

#include <fmt/format.h>

#include <chrono>
#include <functional>
#include <optional>

#include "sfumato/config/training_cautions.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/data/record_store.h"
#include "sfumato/generate/families.h"
#include "sfumato/generate/placement.h"
#include "sfumato/run/checkpoint.h"
#include "sfumato/train/batch_loader.h"
#include "sfumato/train/setup.h"
#include "sfumato/train/shared_store.h"
#include "sfumato/train/training_mechanism.h"
#include "sfumato/train/warm_up.h"
#include "train/previews.h"
#include "train/run_record.h"
#include "train/shared_inputs.h"
#include "train/step_batches.h"
#include "train/step_report.h"
#include "train/train_ranks.h"
#include "train/training_state.h"
#include "train/warm_up_parts.h"

namespace sfumato {
namespace {

/// The same on every rank, but for what is on disk: run directory, ledger, what the store remembers
/// and all that is said of a run are rank 0's alone.
class Training {
 public:
  Training(const Config& config, bool resume, TrainRanks& ranks, SecureKey noise_key);
  TrainResult run();

 private:
  void open_run(bool resume, SecureKey noise_key);
  void before_first_step();
  void one_step();
  void stop_if_requested();
  void save_checkpoint();
  bool checkpoint_is_due();
  void preview();
  void public_steps(const std::function<void()>& steps);
  void catch_up();
  void end_session(const std::string& reason);
  TrainResult release();

  const Config& config_;
  TrainRanks& ranks_;
  RecordStore store_;
  MechanismPlan plan_;
  TrainingState state_;
  std::optional<RunRecord> record_;   ///< of rank 0
  std::optional<StepReport> report_;  ///< of rank 0
  std::optional<Previews> previews_;  ///< of rank 0
  std::unique_ptr<TrainingMechanism> mechanism_;
  std::optional<StepBatches> batches_;
  int64_t step_ = 0;
  int64_t end_ = 0;  ///< step_ when the run will end; less than planned where a crash lost charges
  int64_t saved_step_ = -1;
  std::chrono::steady_clock::time_point saved_at_ = std::chrono::steady_clock::now();
};

/// For the holder of the images alone; "" for none.
static std::string private_warnings(const RecordStore& store, const MechanismPlan& plan,
                                    const Config& config) {
  if (!plan.is_private) return "";
  const std::string batch = batch_misfit(store.count(), plan),
                    unit = unit_misfit(store, config.data);
  return batch + (batch.empty() || unit.empty() ? "" : "\n") + unit;
}

/// Whether the images are those that the manifest and with it the card speak of.
static void read_whole(const RecordStore& store, Communicator& ranks) {
  const RankHold hold(ranks);
  const double gigabytes = 1e-9 * static_cast<double>(store.count()) *
                           static_cast<double>(store.height() * store.width() * store.channels());
  if (gigabytes > 2)
    log_info(
        fmt::format("reading the record store, {:.0f} GB, to see that it is whole", gigabytes));
  store.verify_checksums();
}

Training::Training(const Config& config, bool resume, TrainRanks& ranks, SecureKey noise_key)
    : config_(config),
      ranks_(ranks),
      store_(open_shared_store(config.data.store(), *ranks.communicator())),
      plan_(make_shared_plan(config, store_, ranks)),
      state_(config, plan_, ranks) {
  Generator& generator = state_.generator();
  ranks_.on_leader([&] { record_.emplace(config, store_, resume); });
  ranks_.everywhere(
      [&] { check_store_fits(store_, generator.misfit(image_shape(store_), config), config); });
  ranks_.on_leader([&] { record_->note_start(plan_, generator.state()); });
  ranks_.everywhere([&] { verify_before_training(generator, state_.gradients()); });
  batches_.emplace(config, store_, plan_, state_.gradients(), ranks_);
  // Last of what refuses a run, as it may take minutes.
  if (!resume) ranks_.on_leader([&] { read_whole(store_, *ranks_.communicator()); });
  open_run(resume, std::move(noise_key));
}

void Training::open_run(bool resume, SecureKey noise_key) {
  std::optional<Checkpoint> checkpoint;
  ranks_.on_leader([&] { checkpoint = record_->begin(); });
  if (ranks_.from_leader(checkpoint ? 1 : 0) != 0) {
    state_.restore(checkpoint ? &*checkpoint : nullptr);
    step_ = saved_step_ = ranks_.from_leader(checkpoint ? checkpoint->step : 0);
  }
  ranks_.on_leader([&] {
    const std::filesystem::path folder = record_->directory().private_folder(),
                                metrics = folder / "metrics.jsonl";
    try {
      mechanism_ = open_training_mechanism(static_cast<uint64_t>(config_.run.seed()), plan_,
                                           record_->place(), checkpoint ? &*checkpoint : nullptr,
                                           checkpoint || std::filesystem::exists(metrics),
                                           std::move(noise_key));
    } catch (...) {
      record_->withdraw();
      throw;
    }
    record_->accept(step_);
    tell_holder(private_warnings(store_, plan_, config_), config_, folder);
    log_info(fmt::format("computing {}", device_text(config_.performance)));
    if (resume) log_info(fmt::format("resuming at step {}", step_));
    report_.emplace(metrics, folder / "tensorboard", step_ + 1);
    previews_.emplace(config_, state_.generator(), image_shape(store_),
                      record_->directory().previews(), *report_, step_);
    end_ = mechanism_->end(step_);
    if (end_ < plan_.steps)
      log_info(fmt::format("{} steps are charged and lost: the run ends at step {} of {}",
                           plan_.steps - end_, end_, plan_.steps));
  });
  end_ = ranks_.from_leader(end_);
  if (ranks_.leads())
    mechanism_->lead(ranks_.communicator());
  else
    mechanism_ = follow_training(static_cast<uint64_t>(config_.run.seed()), plan_, end_,
                                 std::move(noise_key), ranks_.communicator());
}

void Training::one_step() {
  const auto start = std::chrono::steady_clock::now();
  const auto [count, statistics] = batches_->accumulate(*mechanism_, step_, end_);
  const OptimizerSettings& o = config_.optimizer;
  const double rate =
      learning_rate_at(step_, o.learning_rate(), o.warmup_steps(), end_,
                       o.decay() == RateDecay::kCosine, o.final_learning_rate_fraction());
  Generator& generator = state_.generator();
  mechanism_->update(state_.gradients(), state_.optimizer(), rate, generator.average(), step_,
                     count);
  ++step_;
  public_steps([&] { generator.after_release(step_ - 1); });
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  if (report_) report_->took(mechanism_->shown_batch(count), seconds.count());
  if (step_ % config_.run.log_every() != 0 && step_ != 1) return;
  const BatchTotals totals = totals_of(statistics, *ranks_.communicator());
  if (report_)
    report_->report({step_, end_, seconds.count(), rate, mechanism_->epsilon_so_far(),
                     generator.warning(), totals});
}

void Training::save_checkpoint() {
  if (saved_step_ == step_) return;
  const NamedGroups groups = state_.complete();
  ranks_.on_leader([&] {
    record_->save(step_, groups, state_.generator(), *mechanism_);
    report_->flush();
  });
  saved_step_ = step_;
  saved_at_ = std::chrono::steady_clock::now();
}

/// By step or by the time since the last, which is rank 0's.
bool Training::checkpoint_is_due() {
  if (step_ % config_.run.checkpoint_every() == 0) return true;
  const std::chrono::duration<double, std::ratio<60>> minutes(config_.run.checkpoint_minutes());
  if (minutes.count() <= 0) return false;
  return ranks_.from_leader(std::chrono::steady_clock::now() - saved_at_ >= minutes ? 1 : 0) != 0;
}

/// All ranks know when one is due; whether it is paid for rank 0 says, by its clock.
void Training::preview() {
  if (!Previews::is_due(config_, step_)) return;
  if (ranks_.from_leader(previews_ && previews_->is_paid_for() ? 1 : 0) == 0) return;
  if (Ema* average = state_.generator().average()) average->gather(state_.slices());
  ranks_.on_leader([&] { previews_->draw(step_, end_, mechanism_->epsilon_so_far()); });
}

void Training::end_session(const std::string& reason) {
  ranks_.on_leader([&] { mechanism_->stop(step_, reason); });
}

/// Rank 0 takes them for all. Where public steps fail, no private one is lost: the checkpoint holds
/// all that were charged.
void Training::public_steps(const std::function<void()>& steps) {
  Generator& generator = state_.generator();
  const int64_t before = generator.public_steps();
  try {
    ranks_.on_leader(steps);
  } catch (const LostRank&) {
    throw;
  } catch (...) {
    if (report_) report_->finish();
    // Weights that the private step itself broke are no start: the last checkpoint is.
    if (ranks_.from_leader(generator.defect().empty() ? 1 : 0) != 0) save_checkpoint();
    end_session("public steps failed");
    throw;
  }
  if (ranks_.from_leader(generator.public_steps() - before) != 0) state_.share_generator();
}

/// Those that are still to come where an earlier process left off, or where private ones end.
void Training::catch_up() {
  public_steps([&] { state_.generator().catch_up(step_ - 1, /*last=*/step_ == end_); });
  if (step_ == end_) saved_step_ = -1;  // the checkpoint of this step holds what came before
}

TrainResult Training::release() {
  TrainResult result;
  result.steps = step_;
  ranks_.on_leader([&] { result = record_->release(step_, state_.generator(), *mechanism_); });
  return result;
}

/// The stages of the mechanism, then the warm-up on what they released. A checkpoint says that the
/// warm-up is over; until then it starts from the beginning, which costs time and no privacy.
void Training::before_first_step() {
  ranks_.on_leader([&] {
    mechanism_->run_stages(config_, store_, record_->directory());
    mechanism_->remember(/*stopped=*/false);
  });
  if (saved_step_ >= 0 || !warms_up(config_)) return;
  const std::vector<WarmUpImages> parts =
      warm_up_parts(config_, record_ ? record_->directory().release() : std::filesystem::path{},
                    image_shape(store_), ranks_);
  ranks_.everywhere([&] {
    warm_up(config_, parts, image_shape(store_), config_.data.num_classes(), batches_->physical(),
            state_.gradients(), state_.generator(),
            [&] { stop_warm_up_if(ranks_.stop_requested()); });
  });
  state_.share_generator();
  state_.gradients().release_memory();  // what ordinary steps needed is of no use to private ones
  state_.generator().restart_average();
  save_checkpoint();
}

void Training::stop_if_requested() {
  if (!ranks_.stop_requested()) return;
  if (report_) report_->finish();
  save_checkpoint();
  end_session("interrupted");
  throw Interrupted(fmt::format(
      "stopped after step {}; the checkpoint is complete, continue with --resume", step_));
}

TrainResult Training::run() {
  before_first_step();
  catch_up();
  while (step_ < end_) {
    stop_if_requested();
    one_step();
    if (step_ == end_) catch_up();
    if (checkpoint_is_due()) save_checkpoint();
    preview();
  }
  if (report_) report_->finish();
  if (previews_ && !previews_->summary().empty()) log_info(previews_->summary());
  save_checkpoint();
  end_session("finished");
  return release();
}

}  // namespace

TrainResult train(Config& config, bool resume, const TrainOptions& options) {
  TrainRanks ranks(options.ranks);
  try {
    resume = ranks.from_leader(resume ? 1 : 0) != 0;
    ranks.everywhere([&] {
      adopt_pretrained_settings(config, resume);
      adopt_image_size(config);
      validate_for_training(config);
    });
    if (ranks.leads() && !resume)
      for (const std::string& caution : training_cautions(config)) log_warning(caution);
    ranks.require_same_settings(config);
    ranks.set_threads(config);
    TrainResult result = Training(config, resume, ranks, options.noise_key()).run();
    ranks.leave();
    return result;
  } catch (...) {
    ranks.leave_if_all_do();
    throw;
  }
}

}  // namespace sfumato
