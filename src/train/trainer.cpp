#include "sfumato/train/trainer.h"

#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <chrono>
#include <limits>
#include <nlohmann/json.hpp>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/log.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/data/record_store.h"
#include "sfumato/device/threads.h"
#include "sfumato/generate/diffusion/objective.h"
#include "sfumato/generate/placement.h"
#include "sfumato/mechanism/initial_weights.h"
#include "sfumato/mechanism/private_statistics.h"
#include "sfumato/mechanism/session.h"
#include "sfumato/models/checkpoint_io.h"
#include "sfumato/run/checkpoint.h"
#include "sfumato/run/released_weights.h"
#include "sfumato/run/run_directory.h"
#include "sfumato/train/batch_loader.h"
#include "sfumato/train/gradient_step.h"
#include "sfumato/train/physical_batch.h"
#include "sfumato/train/pretrained_settings.h"
#include "sfumato/train/setup.h"
#include "sfumato/train/warm_up.h"
#include "train/batch_queue.h"
#include "train/release.h"
#include "train/step_report.h"
#include "train/training_mechanism.h"

namespace sfumato {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

class Training {
 public:
  Training(const Config& config, bool resume);
  TrainResult run();

 private:
  void prepare_batches();
  void open_run(bool resume);
  void restore(const Checkpoint& checkpoint);
  void before_first_step();
  void one_step();
  /// The records of a step; remembers those asked for last.
  const std::vector<int64_t>& sample(int64_t step);
  std::vector<BatchStatistics> accumulate(const std::vector<int64_t>& records);
  void shrink_physical_batch();
  void stop_if_requested();
  void save_checkpoint();
  KnownWeights known_weights() const;
  TrainResult release();

  const Config& config_;
  RecordStore store_;
  MechanismPlan plan_;
  std::unique_ptr<UNet2D> network_;
  c10::Device device_;
  DiffusionObjective objective_;
  GradientStep gradients_;
  Optimizer optimizer_;
  Ema ema_;
  RunDirectory run_;
  InitialWeights start_;  ///< what the run started from
  std::optional<WeightsMemory> memory_;
  std::unique_ptr<TrainingMechanism> mechanism_;
  BatchQueue batches_;
  std::optional<StepReport> report_;
  std::vector<int64_t> sampled_;
  int64_t sampled_step_ = -1;
  int64_t physical_ = 0, size_tried_again_ = 0;
  int64_t step_ = 0;
  int64_t end_ = 0;  ///< step_ when the run will end; less than planned where a crash lost charges
  int64_t saved_step_ = -1;
};

Training::Training(const Config& config, bool resume)
    : config_(config),
      store_(RecordStore::open(config.data.store())),
      plan_(make_plan(config, store_)),
      network_(make_network(config)),
      device_(place_network(*network_, config.performance)),
      objective_(*network_, NoiseSchedule(noise_schedule_options(config.diffusion)),
                 diffusion_options(config.diffusion, config.data.num_classes())),
      gradients_(objective_, clip_options(config), step_options(config)),
      optimizer_(gradients_.engine().trainable(),
                 rate_scales(config, gradients_.engine().trainable()), optimizer_options(config)),
      ema_(gradients_.engine().trainable(), config.optimizer.ema_decay(),
           config.optimizer.ema_warmup()),
      run_(resume ? RunDirectory::open(config.run.dir()) : RunDirectory::create(config.run.dir())),
      batches_([this](int64_t step, std::span<const int64_t> records, int64_t physical) {
        return objective_.draw(load_examples(store_, records, physical),
                               static_cast<uint64_t>(config_.run.seed()),
                               static_cast<uint64_t>(step));
      }) {
  check_store_fits(store_, network_->config(), config);
  start_ = find_initial_weights(config, store_, plan_);
  const bool start_is_public = start_.origin == "scratch" || start_.origin == "public";
  memory_.emplace(store_.path(), named_weights(*network_), start_is_public);
  gradients_.verify();
  prepare_batches();
  open_run(resume);
}

void Training::prepare_batches() {
  physical_ = config_.performance.physical_batch();
  if (physical_ == 0) {
    physical_ = physical_batch_for(
        {plan_.expected_batch_size, plan_.sample_rate, objective_.draws()},
        memory_budget_bytes(config_.performance.memory_budget_gib(), device_), device_,
        [&](int64_t b) { return gradients_.peak_bytes(b, plan_.is_private); });
  }
  log_info(fmt::format("physical batch: {} images of {} draws", physical_, objective_.draws()));
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
  std::vector<Parameter*> parameters = network_->parameters();
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (checkpoint.model.size() != parameters.size() ||
        checkpoint.model[i].first != parameters[i]->name ||
        checkpoint.model[i].second.sizes() != parameters[i]->value.sizes())
      throw DataError("the checkpoint holds another network than model.* describes");
    parameters[i]->value.copy_(checkpoint.model[i].second);
  }
  ema_.load_state(checkpoint.ema);
  optimizer_.load_state(checkpoint.optimizer);
  step_ = saved_step_ = checkpoint.step;
}

void Training::one_step() {
  const auto start = std::chrono::steady_clock::now();
  // An empty batch is a step like any other: noise on a sum of zeros, charged.
  const std::vector<int64_t> records = sample(step_);
  const std::vector<BatchStatistics> statistics = accumulate(records);
  const auto count = static_cast<int64_t>(records.size());
  const OptimizerSettings& o = config_.optimizer;
  const double rate =
      learning_rate_at(step_, o.learning_rate(), o.warmup_steps(), end_,
                       o.decay() == RateDecay::kCosine, o.final_learning_rate_fraction());
  mechanism_->update(gradients_, optimizer_, rate, ema_, step_, count);
  ++step_;
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  report_->took(mechanism_->shown_batch(count), seconds.count());
  if (step_ % config_.run.log_every() == 0 || step_ == 1)
    report_->report({step_, end_, seconds.count(), rate, mechanism_->epsilon_so_far(), statistics});
}

const std::vector<int64_t>& Training::sample(int64_t step) {
  if (sampled_step_ != step) {
    sampled_ = mechanism_->sample(step, store_.count());
    sampled_step_ = step;
  }
  return sampled_;
}

std::vector<BatchStatistics> Training::accumulate(const std::vector<int64_t>& records) {
  std::vector<BatchStatistics> statistics;
  const auto part = [&](const std::vector<int64_t>& all, int64_t first) {
    const int64_t size = std::min(physical_, std::ssize(all) - first);
    return std::span(all).subspan(static_cast<size_t>(first), static_cast<size_t>(size));
  };
  for (int64_t first = 0; first < std::ssize(records);) {
    const auto here = part(records, first);
    const TrainingBatch batch = batches_.take(step_, here, physical_);
    const int64_t next = first + std::ssize(here);
    if (next < std::ssize(records))
      batches_.prepare(step_, part(records, next), physical_);
    else if (step_ + 1 < end_)
      batches_.prepare(step_ + 1, part(sample(step_ + 1), 0), physical_);
    try {
      statistics.push_back(mechanism_->accumulate(gradients_, batch));
      first = next;
    } catch (const c10::OutOfMemoryError&) {
      // Nothing of this batch was added: the same records again, fewer at a time.
      shrink_physical_batch();
    }
  }
  return statistics;
}

void Training::shrink_physical_batch() {
  gradients_.release_memory();
  const bool can_repeat = mechanism_->can_repeat_a_batch();
  // Once more at the same size: what others held, or an earlier phase, may have gone.
  if (can_repeat && std::exchange(size_tried_again_, physical_) != physical_) return;
  if (!can_repeat || physical_ == 1)
    throw DeviceError(fmt::format(
        "out of memory with a physical batch of {}; set a smaller performance.physical_batch or "
        "fewer diffusion.draws",
        physical_));
  physical_ = smaller_physical_batch(physical_);
  log_warning(
      fmt::format("out of memory: the physical batch is {} images from here on", physical_));
}

void Training::save_checkpoint() {
  if (saved_step_ == step_) return;
  Checkpoint checkpoint;
  checkpoint.step = step_;
  for (const Parameter* parameter : network_->parameters())
    checkpoint.model.emplace_back(parameter->name, parameter->value.detach());
  checkpoint.ema = ema_.state();
  checkpoint.optimizer = optimizer_.state();
  checkpoint.state = {{"manifest_hash", store_.manifest_hash()}};
  mechanism_->note(checkpoint);
  // First: a copy of what is written must not be unknown to the store.
  memory_->remember(known_weights(), {checkpoint.model, checkpoint.ema});
  write_checkpoint(run_.checkpoints(), checkpoint);
  prune_checkpoints(run_.checkpoints(), config_.run.keep_last(), config_.run.keep_every());
  mechanism_->remember(/*stopped=*/false);
  report_->flush();
  saved_step_ = step_;
}

KnownWeights Training::known_weights() const {
  KnownWeights known;
  known.plan = plan_;
  const MechanismSession* session = mechanism_->session();
  if (session == nullptr) return known;
  known.plan = session->plan();
  known.run_id = session->ledger().run_id();
  known.is_private = !session->ledger().insecure();
  known.charged_steps = session->ledger().charged_steps();
  return known;
}

TrainResult Training::release() {
  MechanismSession* session = mechanism_->session();
  write_release(
      {config_, session ? session->plan() : plan_, *network_, gradients_.engine().trainable(), ema_,
       store_, run_, start_, step_,
       [this](const NamedTensors& weights) { memory_->remember(known_weights(), {weights}); },
       session});
  mechanism_->remember(/*stopped=*/true);
  if (session == nullptr) return {step_, 0, kInfinity, run_.release()};
  return {step_, session->ledger().charged_steps(), session->epsilon(), run_.release()};
}

/// The stages of the mechanism, then the warm-up on what they released. A checkpoint says that the
/// warm-up is over; until then it starts from the beginning, which costs time and no privacy.
void Training::before_first_step() {
  mechanism_->run_stages(config_, store_, run_);
  mechanism_->remember(/*stopped=*/false);
  if (config_.warmup.steps() == 0 || saved_step_ >= 0) return;
  const CentralImages images = CentralImages::load(central_images_file(run_));
  log_info(fmt::format("warm-up: {} steps on {} noisy central images", config_.warmup.steps(),
                       images.images.size(0) * images.images.size(1)));
  warm_up(config_, images, {store_.channels(), store_.height(), store_.width()},
          config_.data.num_classes(), physical_, gradients_, [] {
            if (stop_requested())
              throw Interrupted(
                  "stopped during the warm-up, which begins anew with --resume; no private step "
                  "was taken");
          });
  gradients_.release_memory();  // what ordinary steps needed is of no use to private ones
  ema_ = Ema(gradients_.engine().trainable(), config_.optimizer.ema_decay(),
             config_.optimizer.ema_warmup());
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
  while (step_ < end_) {
    stop_if_requested();
    one_step();
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
