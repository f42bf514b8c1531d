#include "sfumato/train/training_mechanism.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <utility>

#include "sfumato/core/error.h"
#include "sfumato/grad/public_gradient.h"
#include "sfumato/mechanism/following_session.h"
#include "sfumato/mechanism/private_stages.h"
#include "sfumato/privacy/poisson_sampler.h"

namespace sfumato {
namespace {

class PrivateMechanism : public TrainingMechanism {
 public:
  explicit PrivateMechanism(MechanismSession session)
      : session_(std::move(session)), meter_(session_.plan()) {}

  void lead(std::shared_ptr<Communicator> ranks) override { session_.lead(std::move(ranks)); }
  std::vector<int64_t> sample(int64_t step, int64_t records) const override {
    return session_.sample(step, records);
  }
  BatchStatistics accumulate(GradientStep& gradients, const TrainingBatch& batch) override {
    return gradients.accumulate_private(batch);
  }
  bool can_repeat_a_batch() const override { return true; }
  void update(GradientStep& gradients, Optimizer& optimizer, double learning_rate, Ema* average,
              int64_t step, int64_t) override {
    optimizer.step(session_.release(gradients.take_private(), step), learning_rate, average);
  }
  int64_t end(int64_t step) const override {
    return std::max(step, std::min(session_.plan().steps, step + session_.steps_left()));
  }
  void check_trained(int64_t step) const override {
    if (step == 0)
      throw PrivacyError(fmt::format(
          "all {} steps of this run are charged and lost: no checkpoint holds one of them, and its "
          "weights, which are those of the start, are not released as trained ones. A step more "
          "would spend more than was planned: start a new run in another run.dir, and change what "
          "ended this one (a smaller optimizer.learning_rate where weights were not finite). What "
          "this run has spent stays spent",
          charged()));
  }
  // The batch size is secret: the expected one stands for it.
  double shown_batch(int64_t) const override { return session_.plan().expected_batch_size; }
  std::optional<double> epsilon_so_far() override {
    return meter_.epsilon_after(session_.ledger().charged_steps());
  }
  void run_stages(const Config& config, const RecordStore& store,
                  const RunDirectory& run) override {
    run_private_stages(config, store, run, session_);
  }
  void note(Checkpoint& checkpoint) override { session_.checkpoint(checkpoint); }
  void remember(bool stopped) override { session_.remember(stopped); }
  void stop(int64_t step, const std::string& reason) override { session_.stop(step, reason); }
  KnownWeights known_weights() const override {
    const Ledger& ledger = session_.ledger();
    KnownWeights known;
    known.plan = session_.plan();
    known.run_id = ledger.run_id();
    known.is_private = !ledger.insecure();
    known.charged_steps = ledger.charged_steps();
    return known;
  }
  int64_t charged() const override { return session_.ledger().charged_steps(); }
  double epsilon() const override { return session_.epsilon(); }
  MechanismSession* session() override { return &session_; }

 private:
  MechanismSession session_;
  EpsilonMeter meter_;
};

/// What followers have no part in: what is charged, noted and kept, all of it rank 0's.
class FollowingMechanism : public TrainingMechanism {
 public:
  explicit FollowingMechanism(int64_t end) : end_(end) {}
  int64_t end(int64_t) const override { return end_; }
  void check_trained(int64_t) const override {}
  double shown_batch(int64_t) const override { return 0; }
  std::optional<double> epsilon_so_far() override { return std::nullopt; }
  void run_stages(const Config&, const RecordStore&, const RunDirectory&) override {}
  void note(Checkpoint&) override {}
  void remember(bool) override {}
  void stop(int64_t, const std::string&) override {}
  KnownWeights known_weights() const override { return {}; }
  int64_t charged() const override { return 0; }
  double epsilon() const override { return std::numeric_limits<double>::infinity(); }
  MechanismSession* session() override { return nullptr; }

 private:
  int64_t end_;
};

class FollowingPrivately : public FollowingMechanism {
 public:
  FollowingPrivately(FollowingSession session, int64_t end)
      : FollowingMechanism(end), following_(std::move(session)) {}
  std::vector<int64_t> sample(int64_t step, int64_t records) const override {
    return following_.sample(step, records);
  }
  BatchStatistics accumulate(GradientStep& gradients, const TrainingBatch& batch) override {
    return gradients.accumulate_private(batch);
  }
  bool can_repeat_a_batch() const override { return true; }
  void update(GradientStep& gradients, Optimizer& optimizer, double learning_rate, Ema* average,
              int64_t step, int64_t) override {
    NoisyGradient gradient = following_.release(gradients.take_private(), step);
    optimizer.step(std::move(gradient), learning_rate, average);
  }

 private:
  FollowingSession following_;
};

/// Batches and updates of ordinary training, the same on every rank.
class PlainSteps {
 public:
  PlainSteps(uint64_t seed, double sample_rate)
      : key_(SecureKey::insecure_for_tests(seed)), sampler_(key_, sample_rate) {}
  std::vector<int64_t> sample(int64_t step, int64_t records) const {
    return sampler_.draw(step, records);
  }
  static void update(GradientStep& gradients, Optimizer& optimizer, double learning_rate,
                     Ema* average, int64_t records) {
    const auto divisor = static_cast<double>(std::max<int64_t>(records, 1));
    std::vector<at::Tensor> sums = gradients.take_plain();
    gradients.engine().slices()->sum(sums);
    optimizer.step(PublicGradient(std::move(sums), divisor), learning_rate, average);
  }

 private:
  SecureKey key_;
  PoissonSampler sampler_;
};

class FollowingPlainly : public FollowingMechanism {
 public:
  FollowingPlainly(uint64_t seed, const MechanismPlan& plan, int64_t end)
      : FollowingMechanism(end), steps_(seed, plan.sample_rate) {}
  std::vector<int64_t> sample(int64_t step, int64_t records) const override {
    return steps_.sample(step, records);
  }
  BatchStatistics accumulate(GradientStep& gradients, const TrainingBatch& batch) override {
    return gradients.accumulate_plain(batch);
  }
  bool can_repeat_a_batch() const override { return false; }
  void update(GradientStep& gradients, Optimizer& optimizer, double learning_rate, Ema* average,
              int64_t, int64_t records) override {
    PlainSteps::update(gradients, optimizer, learning_rate, average, records);
  }

 private:
  PlainSteps steps_;
};

class PlainMechanism : public TrainingMechanism {
 public:
  PlainMechanism(uint64_t seed, const MechanismPlan& plan)
      : plan_(plan), steps_(seed, plan.sample_rate) {}

  std::vector<int64_t> sample(int64_t step, int64_t records) const override {
    return steps_.sample(step, records);
  }
  BatchStatistics accumulate(GradientStep& gradients, const TrainingBatch& batch) override {
    return gradients.accumulate_plain(batch);
  }
  // Autograd adds as it goes: what was added cannot be told apart.
  bool can_repeat_a_batch() const override { return false; }
  void update(GradientStep& gradients, Optimizer& optimizer, double learning_rate, Ema* average,
              int64_t, int64_t records) override {
    PlainSteps::update(gradients, optimizer, learning_rate, average, records);
  }
  int64_t end(int64_t step) const override { return std::max(step, plan_.steps); }
  void check_trained(int64_t) const override {}
  double shown_batch(int64_t records) const override { return static_cast<double>(records); }
  std::optional<double> epsilon_so_far() override { return std::nullopt; }
  void run_stages(const Config&, const RecordStore&, const RunDirectory&) override {}
  void note(Checkpoint& checkpoint) override {
    checkpoint.state["plan_version"] = plan_.version;
    checkpoint.state["plan_hash"] = plan_.hash();
  }
  void remember(bool) override {}
  void stop(int64_t, const std::string&) override {}
  KnownWeights known_weights() const override {
    KnownWeights known;
    known.plan = plan_;
    return known;
  }
  int64_t charged() const override { return 0; }
  double epsilon() const override { return std::numeric_limits<double>::infinity(); }
  MechanismSession* session() override { return nullptr; }

 private:
  MechanismPlan plan_;
  PlainSteps steps_;
};

/// PrivacyError unless the checkpoint is one of this plan.
void check_plain_checkpoint(MechanismPlan plan, const Checkpoint& checkpoint) {
  plan.version = checkpoint.state.value("plan_version", int64_t{0});
  if (checkpoint.state.value("plan_hash", "") != plan.hash())
    throw PrivacyError(
        "the checkpoint belongs to another mechanism; restore the configuration "
        "that the run was started with (config.yaml in the run directory)");
}

}  // namespace

std::unique_ptr<TrainingMechanism> open_training_mechanism(uint64_t seed, const MechanismPlan& plan,
                                                           const SessionPlace& place,
                                                           const Checkpoint* checkpoint,
                                                           bool has_trained, SecureKey key) {
  const std::string path = place.ledger.string();
  const bool has_ledger = std::filesystem::exists(place.ledger);
  if (!plan.is_private) {
    if (has_ledger)
      throw PrivacyError(
          fmt::format("'{}' is the ledger of a private run: it cannot go on with "
                      "privacy.enabled = false; choose another run.dir",
                      path));
    if (checkpoint) check_plain_checkpoint(plan, *checkpoint);
    return std::make_unique<PlainMechanism>(seed, plan);
  }
  if (!has_ledger && has_trained)
    throw PrivacyError(
        fmt::format("the ledger '{}' is missing: what this run has spent is no "
                    "longer known; put the file back or start a new run",
                    path));
  return std::make_unique<PrivateMechanism>(
      has_ledger ? MechanismSession::resume(plan, place, std::move(key), checkpoint)
                 : MechanismSession::create(plan, place, std::move(key)));
}

std::unique_ptr<TrainingMechanism> follow_training(uint64_t seed, const MechanismPlan& plan,
                                                   int64_t end, SecureKey noise_key,
                                                   std::shared_ptr<Communicator> ranks) {
  if (!plan.is_private) return std::make_unique<FollowingPlainly>(seed, plan, end);
  return std::make_unique<FollowingPrivately>(
      FollowingSession(plan, std::move(ranks), std::move(noise_key)), end);
}

}  // namespace sfumato
