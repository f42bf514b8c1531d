#include "sfumato/train/trainer.h"

#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "run/checkpoint_binding.h"
#include "sfumato/core/bound_text.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/log.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/core/text.h"
#include "sfumato/data/record_store.h"
#include "sfumato/device/threads.h"
#include "sfumato/generate/diffusion/draws.h"
#include "sfumato/generate/diffusion/noise_schedule.h"
#include "sfumato/generate/placement.h"
#include "sfumato/mechanism/initial_weights.h"
#include "sfumato/mechanism/private_stages.h"
#include "sfumato/mechanism/private_statistics.h"
#include "sfumato/models/checkpoint_io.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/privacy/poisson_sampler.h"
#include "sfumato/privacy/rdp.h"
#include "sfumato/privacy/secure_random.h"
#include "sfumato/run/checkpoint.h"
#include "sfumato/run/run_directory.h"
#include "sfumato/run/use_witness.h"
#include "sfumato/train/gradient_step.h"
#include "sfumato/train/physical_batch.h"
#include "sfumato/train/pretrained_settings.h"
#include "sfumato/train/setup.h"
#include "sfumato/train/warm_up.h"
#include "train/release.h"
#include "train/step_report.h"

namespace sfumato {
namespace {

/// Training without privacy draws its batches from run.seed, so that a resumed run repeats them;
/// private training from a key of this session alone.
SecureKey session_key(const Config& config) {
  return config.privacy.enabled()
             ? SecureKey::generate()
             : SecureKey::insecure_for_tests(static_cast<uint64_t>(config.run.seed()));
}

class Training {
 public:
  Training(const Config& config, bool resume);
  TrainResult run();

 private:
  void open_run(bool resume);
  void find_end();
  void open_ledger(const std::optional<Checkpoint>& checkpoint, bool has_trained);
  void restore(const Checkpoint& checkpoint);
  void prepare_batches();
  void before_first_step();
  void stop_if_requested();
  void one_step();
  void shrink_physical_batch();
  NoisyGradient private_gradient();
  NoisyGradient plain_gradient(int64_t records);
  void save_checkpoint();
  void note_use(bool stopped = false);
  bool finished() const;
  double epsilon() const;
  TrainResult release();

  const Config& config_;
  RecordStore store_;
  MechanismPlan plan_;
  std::unique_ptr<UNet2D> network_;
  c10::Device device_;
  NoiseSchedule schedule_;
  DiffusionOptions diffusion_;
  GradientStep gradients_;
  Optimizer optimizer_;
  Ema ema_;
  RunDirectory run_;
  SecureKey key_;
  FoundWeights start_;  ///< what the run started from
  PoissonSampler sampler_;
  std::optional<Ledger> ledger_;
  std::optional<UseWitness> witness_;
  std::optional<StepReport> report_;
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
      schedule_(noise_schedule_options(config.diffusion)),
      diffusion_(diffusion_options(config.diffusion, config.data.num_classes())),
      gradients_(*network_, schedule_, diffusion_, clip_options(config), step_options(config)),
      optimizer_(gradients_.engine().trainable(),
                 rate_scales(config, gradients_.engine().trainable()), optimizer_options(config)),
      ema_(gradients_.engine().trainable(), config.optimizer.ema_decay(),
           config.optimizer.ema_warmup()),
      run_(resume ? RunDirectory::open(config.run.dir()) : RunDirectory::create(config.run.dir())),
      key_(session_key(config)),
      sampler_(key_, plan_.sample_rate) {
  check_store_fits(store_, network_->config(), config);
  start_ = find_initial_weights(config, store_, plan_);
  gradients_.verify();
  prepare_batches();
  open_run(resume);
}

void Training::prepare_batches() {
  physical_ = config_.performance.physical_batch();
  if (physical_ == 0) {
    physical_ = physical_batch_for(
        {plan_.expected_batch_size, plan_.sample_rate, diffusion_.draws},
        memory_budget_bytes(config_.performance.memory_budget_gib(), device_), device_,
        [&](int64_t b) { return gradients_.peak_bytes(b, plan_.is_private); });
  }
  log_info(fmt::format("physical batch: {} images of {} draws", physical_, diffusion_.draws));
}

void Training::open_run(bool resume) {
  const std::filesystem::path metrics = run_.private_folder() / "metrics.jsonl";
  if (plan_.is_private) witness_.emplace(store_.path());
  if (resume) {
    std::optional<Checkpoint> checkpoint;
    if (const auto newest = newest_checkpoint(run_.checkpoints()))
      checkpoint = read_checkpoint(*newest);
    open_ledger(checkpoint, checkpoint || std::filesystem::exists(metrics));
    if (checkpoint) restore(*checkpoint);
    if (ledger_) ledger_->resume(key_, witness_->writable());
    log_info(fmt::format("resuming at step {}", step_));
  }
  // Not before: a resume that is refused leaves the run's own configuration. And before a new
  // ledger, so that a run that crashes from here on can be resumed.
  write_file_atomic(run_.config(), config_.resolved_yaml());
  if (plan_.is_private && !ledger_)
    ledger_.emplace(Ledger::create(run_.ledger(), plan_.to_json(), plan_.steps, key_,
                                   witness_->writable(), start_.initial));
  note_use();
  if (ledger_) ledger_->on_charge([this] { witness_->note_if_due(*ledger_, run_.path()); });
  report_.emplace(plan_, ledger_ ? &*ledger_ : nullptr, metrics,
                  run_.private_folder() / "tensorboard", step_ + 1);
  find_end();
}

/// Every step is charged, and a session charges each of its steps once: what an earlier one charged
/// beyond its checkpoint is missing at the end.
void Training::find_end() {
  end_ = plan_.steps;
  if (!ledger_) return;
  const int64_t left = ledger_->max_charged_steps() - ledger_->charged_steps();
  end_ = std::min(end_, step_ + left);
  if (end_ < plan_.steps)
    log_info(fmt::format("{} steps are charged and lost: the run ends at step {} of {}",
                         plan_.steps - end_, end_, plan_.steps));
}

/// The ledger of the run that is resumed. `has_trained`: steps were taken, so that there must be
/// one.
void Training::open_ledger(const std::optional<Checkpoint>& checkpoint, bool has_trained) {
  const std::string path = run_.ledger().string();
  if (!std::filesystem::exists(run_.ledger())) {
    if (plan_.is_private && has_trained)
      throw PrivacyError(
          fmt::format("the ledger '{}' is missing: what this run has spent is no "
                      "longer known; put the file back or start a new run",
                      path));
    return;
  }
  if (!plan_.is_private)
    throw PrivacyError(
        fmt::format("'{}' is the ledger of a private run: it cannot go on with "
                    "privacy.enabled = false; choose another run.dir",
                    path));
  const LedgerSummary found = verify_ledger(run_.ledger());
  witness_->check(found);
  // The head that the checkpoint saw must still be in the chain: no lines were cut from the end.
  ledger_.emplace(Ledger::open(
      run_.ledger(), checkpoint ? checkpoint->state.value("ledger_head", "") : std::string{}));
  const auto frozen = MechanismPlan::from_json(nlohmann::json::parse(ledger_->plan()));
  plan_.version = frozen.version;
  const std::string difference = frozen.describe_difference(plan_);
  if (!difference.empty())
    throw PrivacyError("the mechanism of a run is frozen, but the configuration differs:\n" +
                       difference);
  check_same_start(found.initial_weights, start_.initial, path);
  int64_t line = 0;
  const std::string defect =
      checkpoint ? checkpoint_defect(found, *checkpoint, checkpoint->step, line) : "";
  if (!defect.empty())
    throw PrivacyError(fmt::format(
        "the checkpoint of step {} in '{}': {}; put back the checkpoint that the run saved, or "
        "remove it to go on from an earlier one",
        checkpoint->step, run_.checkpoints().string(), defect));
}

void Training::restore(const Checkpoint& checkpoint) {
  const auto& state = checkpoint.state;
  if (!ledger_) plan_.version = state.value("plan_version", int64_t{0});
  if (state.value("plan_hash", "") != plan_.hash())
    throw PrivacyError(
        "the checkpoint belongs to another mechanism; restore the configuration "
        "that the run was started with (config.yaml in the run directory)");
  if (state.value("manifest_hash", "") != store_.manifest_hash())
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
  if (ledger_ && ledger_->charged_steps() < step_)
    throw PrivacyError(
        fmt::format("the ledger holds {} charges, the checkpoint {} steps: the "
                    "ledger was cut or replaced",
                    ledger_->charged_steps(), step_));
}

bool Training::finished() const {
  if (step_ >= plan_.steps) return true;
  return ledger_ && ledger_->charged_steps() >= ledger_->max_charged_steps();
}

double Training::epsilon() const {
  return ledger_ ? plan_.epsilon_after(ledger_->charged_steps())
                 : std::numeric_limits<double>::infinity();
}

void Training::one_step() {
  const auto start = std::chrono::steady_clock::now();
  const std::vector<int64_t> records = sampler_.draw(step_, store_.count());
  std::vector<BatchStatistics> statistics;
  const auto count = static_cast<int64_t>(records.size());
  for (int64_t first = 0; first < count;) {
    const auto size = static_cast<size_t>(std::min(physical_, count - first));
    const PhysicalBatch batch = load_physical_batch(
        store_, std::span(records).subspan(static_cast<size_t>(first), size), physical_,
        static_cast<uint64_t>(config_.run.seed()), step_, diffusion_);
    try {
      statistics.push_back(ledger_ ? gradients_.accumulate_private(batch)
                                   : gradients_.accumulate_plain(batch));
      first += static_cast<int64_t>(size);
    } catch (const c10::OutOfMemoryError&) {
      // Nothing of this batch was added: the same records again, fewer at a time.
      shrink_physical_batch();
    }
  }
  // An empty batch is a step like any other: noise on a sum of zeros, charged.
  NoisyGradient gradient = ledger_ ? private_gradient() : plain_gradient(count);
  const OptimizerSettings& o = config_.optimizer;
  const double rate = learning_rate_at(step_, o.learning_rate(), o.warmup_steps(), end_,
                                       o.decay() == "cosine", o.final_learning_rate_fraction());
  optimizer_.step(std::move(gradient), rate, &ema_);
  ++step_;
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  // The batch size is secret, and the rate goes to the terminal: the expected one stands for it.
  report_->took(ledger_ ? plan_.expected_batch_size : static_cast<double>(count), seconds.count());
  if (step_ % config_.run.log_every() == 0 || step_ == 1)
    report_->report({step_, end_, seconds.count(), rate, statistics});
}

void Training::shrink_physical_batch() {
  gradients_.release_memory();
  // Once more at the same size: what others held, or an earlier phase, may have gone.
  if (ledger_ && std::exchange(size_tried_again_, physical_) != physical_) return;
  // Plain autograd adds as it goes: what was added cannot be told apart.
  if (!ledger_ || physical_ == 1)
    throw DeviceError(fmt::format(
        "out of memory with a physical batch of {}; set a smaller performance.physical_batch or "
        "fewer diffusion.draws",
        physical_));
  physical_ = smaller_physical_batch(physical_);
  log_warning(
      fmt::format("out of memory: the physical batch is {} images from here on", physical_));
}

NoisyGradient Training::private_gradient() {
  ClippedSum sum = gradients_.take_private();
  // On disk before the noise exists: a crash can over-count, never under-count.
  ChargedStep charge = ledger_->charge(step_, key_);
  return NoisyGradient::release(std::move(sum), plan_.noise_multiplier, plan_.expected_batch_size,
                                key_, std::move(charge));
}

NoisyGradient Training::plain_gradient(int64_t records) {
  return NoisyGradient::not_private(gradients_.take_plain(),
                                    static_cast<double>(std::max<int64_t>(records, 1)));
}

void Training::save_checkpoint() {
  if (saved_step_ == step_) return;
  Checkpoint checkpoint;
  checkpoint.step = step_;
  for (const Parameter* parameter : network_->parameters())
    checkpoint.model.emplace_back(parameter->name, parameter->value.detach());
  checkpoint.ema = ema_.state();
  checkpoint.optimizer = optimizer_.state();
  checkpoint.state = {{"plan_version", plan_.version},
                      {"plan_hash", plan_.hash()},
                      {"manifest_hash", store_.manifest_hash()}};
  if (ledger_) {
    ledger_->record_event("checkpoint",
                          {{"step", step_}, {"checkpoint", checkpoint_sha256(checkpoint)}});
    checkpoint.state["ledger_head"] = ledger_->head_hash();
    checkpoint.state["charged_steps"] = ledger_->charged_steps();
  }
  write_checkpoint(run_.checkpoints(), checkpoint);
  prune_checkpoints(run_.checkpoints(), config_.run.keep_last(), config_.run.keep_every());
  note_use();
  report_->flush();
  saved_step_ = step_;
}

/// What the ledger holds by now, told to the record store: a copy of the run that was put back
/// later cannot forget it.
void Training::note_use(bool stopped) {
  if (ledger_) witness_->note(*ledger_, run_.path(), stopped);
}

TrainResult Training::release() {
  ReleaseInputs inputs{config_, plan_,  *network_, gradients_.engine().trainable(), ema_, store_,
                       run_,    start_, step_};
  if (ledger_) inputs.ledger = &*ledger_;
  write_release(inputs);
  note_use(/*stopped=*/true);
  return {step_, ledger_ ? ledger_->charged_steps() : 0, epsilon(), run_.release()};
}

/// The stages of the mechanism, then the warm-up on what they released. A checkpoint says that the
/// warm-up is over; until then it starts from the beginning, which costs time and no privacy.
void Training::before_first_step() {
  if (ledger_) run_private_stages(config_, plan_, store_, run_, *ledger_, key_);
  note_use();
  if (config_.warmup.steps() == 0 || saved_step_ >= 0) return;
  const CentralImages images = CentralImages::load(central_images_file(run_));
  log_info(fmt::format("warm-up: {} steps on {} noisy central images", config_.warmup.steps(),
                       images.images.size(0) * images.images.size(1)));
  warm_up(config_, images, {store_.channels(), store_.height(), store_.width()}, diffusion_,
          physical_, gradients_, [] {
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
  if (ledger_) ledger_->record_event("stop", {{"step", step_}, {"reason", "interrupted"}});
  note_use(/*stopped=*/true);
  throw Interrupted(fmt::format(
      "stopped after step {}; the checkpoint is complete, continue with --resume", step_));
}

TrainResult Training::run() {
  before_first_step();
  while (!finished()) {
    stop_if_requested();
    one_step();
    if (step_ % config_.run.checkpoint_every() == 0) save_checkpoint();
  }
  report_->finish();
  save_checkpoint();
  if (ledger_) ledger_->record_event("stop", {{"step", step_}, {"reason", "finished"}});
  note_use(/*stopped=*/true);
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
