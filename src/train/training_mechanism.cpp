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

/// Steps of a private run, on whichever rank: `Session` is a MechanismSession or a
/// FollowingSession, `Rest` what the rank does besides.
template <class Rest, class Session>
class PrivateSteps : public Rest {
 public:
  template <class... Arguments>
  explicit PrivateSteps(Session session, Arguments... arguments)
      : Rest(arguments...), session_(std::move(session)) {}

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

 protected:
  Session session_;
};

/// Steps of ordinary training, the same on every rank.
template <class Rest>
class PlainSteps : public Rest {
 public:
  template <class Argument>
  PlainSteps(uint64_t seed, const MechanismPlan& plan, const Argument& argument)
      : Rest(argument),
        key_(SecureKey::insecure_for_tests(seed)),
        sampler_(key_, plan.sample_rate) {}

  std::vector<int64_t> sample(int64_t step, int64_t records) const override {
    return sampler_.draw(step, records);
  }
  BatchStatistics accumulate(GradientStep& gradients, const TrainingBatch& batch) override {
    return gradients.accumulate_plain(batch);
  }
  // Autograd adds as it goes: what was added cannot be told apart.
  bool can_repeat_a_batch() const override { return false; }
  void update(GradientStep& gradients, Optimizer& optimizer, double learning_rate, Ema* average,
              int64_t, int64_t records) override {
    const auto divisor = static_cast<double>(std::max<int64_t>(records, 1));
    std::vector<at::Tensor> sums = gradients.take_plain();
    gradients.engine().slices()->sum(sums);
    optimizer.step(PublicGradient(std::move(sums), divisor), learning_rate, average);
  }

 private:
  SecureKey key_;
  PoissonSampler sampler_;
};

class PrivateMechanism : public PrivateSteps<TrainingMechanism, MechanismSession> {
 public:
  explicit PrivateMechanism(MechanismSession session)
      : PrivateSteps(std::move(session)), meter_(session_.plan()) {}

  void lead(std::shared_ptr<Communicator> ranks) override { session_.lead(std::move(ranks)); }
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
  EpsilonMeter meter_;
};

/// What there is none of without a ledger.
class WithoutLedger : public TrainingMechanism {
 public:
  void check_trained(int64_t) const override {}
  std::optional<double> epsilon_so_far() override { return std::nullopt; }
  void run_stages(const Config&, const RecordStore&, const RunDirectory&) override {}
  void remember(bool) override {}
  void stop(int64_t, const std::string&) override {}
  int64_t charged() const override { return 0; }
  double epsilon() const override { return std::numeric_limits<double>::infinity(); }
  MechanismSession* session() override { return nullptr; }
};

/// What followers have no part in is rank 0's: charges, notes and what is kept.
class Follower : public WithoutLedger {
 public:
  explicit Follower(int64_t end) : end_(end) {}
  int64_t end(int64_t) const override { return end_; }
  double shown_batch(int64_t) const override { return 0; }
  void note(Checkpoint&) override {}
  KnownWeights known_weights() const override { return {}; }

 private:
  int64_t end_;
};

class NotPrivate : public WithoutLedger {
 public:
  explicit NotPrivate(const MechanismPlan& plan) : plan_(plan) {}
  int64_t end(int64_t step) const override { return std::max(step, plan_.steps); }
  double shown_batch(int64_t records) const override { return static_cast<double>(records); }
  void note(Checkpoint& checkpoint) override {
    checkpoint.state["plan_version"] = plan_.version;
    checkpoint.state["plan_hash"] = plan_.hash();
  }
  KnownWeights known_weights() const override {
    KnownWeights known;
    known.plan = plan_;
    return known;
  }

 private:
  MechanismPlan plan_;
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
    return std::make_unique<PlainSteps<NotPrivate>>(seed, plan, plan);
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
  if (!plan.is_private) return std::make_unique<PlainSteps<Follower>>(seed, plan, end);
  return std::make_unique<PrivateSteps<Follower, FollowingSession>>(
      FollowingSession(plan, std::move(ranks), std::move(noise_key)), end);
}

}  // namespace sfumato
