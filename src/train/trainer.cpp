#include "sfumato/train/trainer.h"

#include <fmt/format.h>

#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/log.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/data/record_store.h"
#include "sfumato/device/threads.h"
#include "sfumato/generate/families.h"
#include "sfumato/mechanism/central_images.h"
#include "sfumato/mechanism/initial_weights.h"
#include "sfumato/mechanism/released_weights.h"
#include "sfumato/models/tensor_file.h"
#include "sfumato/run/checkpoint.h"
#include "sfumato/run/run_directory.h"
#include "sfumato/train/batch_loader.h"
#include "sfumato/train/setup.h"
#include "sfumato/train/warm_up.h"
#include "train/release.h"
#include "train/step_batches.h"
#include "train/step_report.h"
#include "train/training_mechanism.h"

namespace sfumato {
namespace {

class Training {
 public:
  Training(const Config& config, bool resume);
  TrainResult run();

 private:
  void open_run(bool resume);
  void restore(const Checkpoint& checkpoint);
  void before_first_step();
  void one_step();
  void stop_if_requested();
  void save_checkpoint();
  void public_steps(const std::function<void()>& steps);
  void catch_up();
  TrainResult release();

  const Config& config_;
  RecordStore store_;
  MechanismPlan plan_;
  std::unique_ptr<Generator> generator_;
  GradientStep gradients_;
  Optimizer optimizer_;
  RunDirectory run_;
  InitialWeights start_;  ///< what the run started from
  std::optional<WeightsMemory> memory_;
  std::unique_ptr<TrainingMechanism> mechanism_;
  std::optional<StepBatches> batches_;
  std::optional<StepReport> report_;
  int64_t step_ = 0;
  int64_t end_ = 0;  ///< step_ when the run will end; less than planned where a crash lost charges
  int64_t saved_step_ = -1;
};

Training::Training(const Config& config, bool resume)
    : config_(config),
      store_(RecordStore::open(config.data.store())),
      plan_(make_plan(config, store_)),
      generator_(make_generator(config, open_placement(config.performance))),
      gradients_(generator_->objective(), clip_options(config), step_options(config)),
      optimizer_(gradients_.engine().trainable(), generator_->rate_scales(config),
                 optimizer_options(config)),
      run_(resume ? RunDirectory::open(config.run.dir()) : RunDirectory::create(config.run.dir())) {
  check_store_fits(store_, generator_->misfit(image_shape(store_), config), config);
  start_ = find_initial_weights(config, store_, plan_, family_of(config).load_weights);
  const bool start_is_public = start_.origin == "scratch" || start_.origin == "public";
  memory_.emplace(store_.path(), joined(generator_->state()), start_is_public);
  verify_before_training(*generator_, gradients_);
  batches_.emplace(config, store_, plan_, gradients_);
  open_run(resume);
}

void Training::open_run(bool resume) {
  const std::filesystem::path metrics = run_.private_folder() / "metrics.jsonl";
  const SessionPlace place{run_.ledger(), run_.path(), store_.path(), start_};
  std::optional<Checkpoint> checkpoint;
  if (resume) {
    if (const auto newest = newest_checkpoint(run_.checkpoints()))
      checkpoint = read_checkpoint(*newest);
  } else {
    // Before the ledger, so that a run that crashes from here on can be resumed.
    write_file_atomic(run_.config(), config_.resolved_yaml());
  }
  if (checkpoint) restore(*checkpoint);
  mechanism_ = open_training_mechanism(config_, plan_, place, checkpoint ? &*checkpoint : nullptr,
                                       checkpoint || std::filesystem::exists(metrics));
  if (resume) {
    // Not before: a resume that is refused leaves the run's own configuration.
    write_file_atomic(run_.config(), config_.resolved_yaml());
    log_info(fmt::format("resuming at step {}", step_));
  }
  report_.emplace(metrics, run_.private_folder() / "tensorboard", step_ + 1);
  end_ = mechanism_->end(step_);
  if (end_ < plan_.steps)
    log_info(fmt::format("{} steps are charged and lost: the run ends at step {} of {}",
                         plan_.steps - end_, end_, plan_.steps));
}

void Training::restore(const Checkpoint& checkpoint) {
  if (checkpoint.state.value("manifest_hash", "") != store_.manifest_hash())
    throw PrivacyError(
        "the record store is not the one that this run was started with; set "
        "data.store to the original store");
  NamedGroups groups;
  for (const TensorGroup& group : checkpoint.groups)
    if (group.name != kOptimizerGroup) groups.emplace_back(group.name, to_tensors(group));
  generator_->load_state(groups);
  optimizer_.load_state(to_tensors(checkpoint.group(kOptimizerGroup)));
  step_ = saved_step_ = checkpoint.step;
}

void Training::one_step() {
  const auto start = std::chrono::steady_clock::now();
  const auto [count, statistics] = batches_->accumulate(*mechanism_, step_, end_);
  const OptimizerSettings& o = config_.optimizer;
  const double rate =
      learning_rate_at(step_, o.learning_rate(), o.warmup_steps(), end_,
                       o.decay() == RateDecay::kCosine, o.final_learning_rate_fraction());
  mechanism_->update(gradients_, optimizer_, rate, generator_->average(), step_, count);
  ++step_;
  public_steps([&] { generator_->after_release(step_ - 1); });
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  report_->took(mechanism_->shown_batch(count), seconds.count());
  if (step_ % config_.run.log_every() == 0 || step_ == 1)
    report_->report({step_, end_, seconds.count(), rate, mechanism_->epsilon_so_far(),
                     generator_->warning(), statistics});
}

void Training::save_checkpoint() {
  if (saved_step_ == step_) return;
  if (!all_finite(generator_->state()))
    throw DataError(fmt::format(
        "the weights are not finite after step {}: this checkpoint is not written. Continue from "
        "the last with --resume and a smaller optimizer.learning_rate; steps since stay charged",
        step_));
  Checkpoint checkpoint;
  checkpoint.step = step_;
  NamedGroups groups = generator_->state();
  const NamedTensors kept = joined(groups);
  groups.emplace_back(kOptimizerGroup, optimizer_.state());
  for (const auto& [name, tensors] : groups)
    checkpoint.groups.push_back(tensor_group(name, tensors));
  checkpoint.state = {{"manifest_hash", store_.manifest_hash()}};
  mechanism_->note(checkpoint);
  // First: a copy of what is written must not be unknown to the store.
  memory_->remember(mechanism_->known_weights(), {kept});
  write_checkpoint(run_.checkpoints(), checkpoint);
  prune_checkpoints(run_.checkpoints(), config_.run.keep_last(), config_.run.keep_every());
  mechanism_->remember(/*stopped=*/false);
  report_->flush();
  saved_step_ = step_;
}

/// Where public steps fail, no private one is lost: the checkpoint holds all that were charged.
void Training::public_steps(const std::function<void()>& steps) {
  try {
    steps();
  } catch (...) {
    report_->finish();
    // Weights that the private step itself broke are no start: the last checkpoint is.
    if (all_finite(generator_->state())) save_checkpoint();
    mechanism_->stop(step_, "public steps failed");
    throw;
  }
}

/// Those that are still to come where an earlier process left off, or where private ones end.
void Training::catch_up() {
  public_steps([&] { generator_->catch_up(step_ - 1, /*last=*/step_ == end_); });
  if (step_ == end_) saved_step_ = -1;  // the checkpoint of this step holds what came before
}

TrainResult Training::release() {
  const MechanismPlan plan = mechanism_->known_weights().plan;
  write_release({config_, plan, *generator_, store_, run_, start_,
                 [this](const NamedTensors& weights) {
                   memory_->remember(mechanism_->known_weights(), {weights});
                 },
                 mechanism_->session()});
  mechanism_->remember(/*stopped=*/true);
  return {step_, mechanism_->charged(), mechanism_->epsilon(), run_.release()};
}

/// The stages of the mechanism, then the warm-up on what they released. A checkpoint says that the
/// warm-up is over; until then it starts from the beginning, which costs time and no privacy.
void Training::before_first_step() {
  mechanism_->run_stages(config_, store_, run_);
  mechanism_->remember(/*stopped=*/false);
  if (config_.warmup.steps() == 0 || saved_step_ >= 0) return;
  const CentralImages images =
      CentralImages::load(run_.release() / config_.central_images.stage.result);
  log_info(fmt::format("warm-up: {} steps on {} noisy central images", config_.warmup.steps(),
                       images.images.size(0) * images.images.size(1)));
  warm_up(config_, images, image_shape(store_), config_.data.num_classes(), batches_->physical(),
          gradients_, *generator_, [] {
            if (stop_requested())
              throw Interrupted(
                  "stopped during the warm-up, which begins anew with --resume; no private step "
                  "was taken");
          });
  gradients_.release_memory();  // what ordinary steps needed is of no use to private ones
  generator_->restart_average();
  save_checkpoint();
}

void Training::stop_if_requested() {
  if (!stop_requested()) return;
  report_->finish();
  save_checkpoint();
  mechanism_->stop(step_, "interrupted");
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
    if (step_ % config_.run.checkpoint_every() == 0) save_checkpoint();
  }
  report_->finish();
  save_checkpoint();
  mechanism_->stop(step_, "finished");
  return release();
}

}  // namespace

TrainResult train(Config& config, bool resume) {
  adopt_pretrained_settings(config, resume);
  validate_for_training(config);
  set_threads(config.performance.threads());
  return Training(config, resume).run();
}

}  // namespace sfumato
