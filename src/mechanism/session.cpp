#include "sfumato/mechanism/session.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>
#include <variant>

#include "mechanism/told_by_leader.h"
#include "run/checkpoint_binding.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/mechanism/following_session.h"
#include "sfumato/mechanism/initial_weights.h"
#include "sfumato/privacy/poisson_sampler.h"
#include "sfumato/run/witness.h"

namespace sfumato {

struct MechanismSession::State {
  State(const MechanismPlan& frozen, const SessionPlace& where, SecureKey session_key)
      : plan(frozen), place(where), key(std::move(session_key)), sampler(key, plan.sample_rate) {
    if ((place.must_be_witnessed || !place.held_out.empty()) && place.store.empty())
      throw PrivacyError("a release that must be remembered needs the record store of its run");
    if (!place.store.empty() && place.data_manifest_hash.empty())
      throw PrivacyError("a session on a record store needs its manifest_hash, for the ledger");
    if (!place.store.empty())
      witness.emplace(place.store,
                      place.must_be_witnessed ? WitnessDuty::kRefuses : WitnessDuty::kWarns);
    if (!place.held_out.empty()) of_held_out.emplace(place.held_out, WitnessDuty::kRefuses);
  }
  bool witnessed() const { return witness && witness->writable(); }

  MechanismPlan plan;
  SessionPlace place;
  SecureKey key;  // the sampler and released gradients hold references to it
  PoissonSampler sampler;
  std::optional<WitnessKeeper> witness, of_held_out;
  std::optional<Ledger> ledger;
  std::shared_ptr<Communicator> ranks;  ///< that this one leads; null: none
  std::optional<SamplingKey> shared_key;
  std::optional<PoissonSampler> shared_sampler;  ///< of training, where ranks share its key
};

namespace {

/// The checkpoint must be one that this run saved, and none whose steps the ledger has not charged.
void check_checkpoint(const Checkpoint& checkpoint, const LedgerSummary& found,
                      const std::filesystem::path& ledger) {
  std::int64_t line = 0;
  const std::string defect = checkpoint_defect(found, checkpoint, checkpoint.step, line);
  if (!defect.empty())
    throw PrivacyError(fmt::format(
        "the checkpoint of step {} of the run in '{}': {}; put back the checkpoint that the run "
        "saved, or remove it to go on from an earlier one",
        checkpoint.step, ledger.parent_path().string(), defect));
  if (found.charged_steps < checkpoint.step)
    throw PrivacyError(
        fmt::format("the ledger holds {} charges, the checkpoint {} steps: the "
                    "ledger was cut or replaced",
                    found.charged_steps, checkpoint.step));
}

/// PrivacyError unless the noise of `plan` hides one example of `sum`.
void check_bound(const ClippedSum& sum, const MechanismPlan& plan) {
  if (sum.clip_norm_l2() != plan.clip_norm_l2)
    throw PrivacyError(
        fmt::format("a sum clipped to {} is none of the mechanism, whose clip norm is {}",
                    sum.clip_norm_l2(), plan.clip_norm_l2));
}

/// A run has one record store from its first charge on: what its stages released of one must not
/// be followed by steps on another, whose card would not speak of the first.
void check_records(const LedgerSummary& found, const SessionPlace& place) {
  if (!found.data_manifest_hash.empty() && found.data_manifest_hash != place.data_manifest_hash)
    throw PrivacyError(fmt::format(
        "the record store{} is not the one that the run in '{}' was started with (one that is "
        "prepared again, from the same images too, is another); set data.store to that one, or "
        "start a new run",
        place.store.empty() ? std::string() : fmt::format(" '{}'", place.store.string()),
        place.ledger.parent_path().string()));
}

/// The release of a training step, on whichever rank.
NoisyGradient noised(ClippedSum&& sum, const MechanismPlan& plan, const SecureKey& key,
                     ChargedStep&& charge) {
  return NoisyGradient::release(std::move(sum), plan.noise_multiplier, plan.expected_batch_size,
                                key, std::move(charge));
}

/// What decides noise and sampling of a stage.
struct Planned {
  Phase phase;
  std::int64_t place;  ///< among the stages of the plan
};

/// The stage as the plan has it. PrivacyError if `stage` is another.
Planned planned(const MechanismPlan& plan, const StagePlan& stage) {
  for (std::size_t i = 0; i < plan.stages.size(); ++i) {
    const StagePlan& each = plan.stages[i];
    if (each.name == stage.name && !each.declared && !stage.declared &&
        each.clip_norm_l2 == stage.clip_norm_l2 && to_json(each.event) == to_json(stage.event))
      if (const std::optional<Phase> phase = each.executed())
        return {*phase, static_cast<std::int64_t>(i)};
  }
  throw PrivacyError(
      fmt::format("the mechanism plans no stage '{}' of this noise, rate and bound", stage.name));
}

/// PrivacyError if replacing a record may move `sum` by more than its stage counts.
void check_sensitivity(const StatisticSum& sum, const StagePlan& stage, Adjacency adjacency) {
  const auto* release = std::get_if<GaussianRelease>(&stage.event);
  const double moved =
      stage.clip_norm_l2 * sensitivity_in_clip_norms(adjacency, sum.contributions());
  if (release != nullptr && release->sensitivity_l2 < moved)
    throw PrivacyError(
        fmt::format("a sum that one record moves by {} is none of the stage '{}', which counts {}",
                    moved, stage.name, release->sensitivity_l2));
}

}  // namespace

MechanismSession::MechanismSession(std::unique_ptr<State> state) : state_(std::move(state)) {
  if (state_->witness)
    state_->ledger->on_charge([s = state_.get()] {
      s->witness->write_if_due(*s->ledger, s->place.run);
      if (s->of_held_out) s->of_held_out->write_if_due(*s->ledger, s->place.run);
    });
  remember();
}

MechanismSession::~MechanismSession() = default;
MechanismSession::MechanismSession(MechanismSession&&) noexcept = default;
MechanismSession& MechanismSession::operator=(MechanismSession&&) noexcept = default;

MechanismSession MechanismSession::create(const MechanismPlan& plan, const SessionPlace& place,
                                          SecureKey key) {
  auto state = std::make_unique<State>(plan, place, std::move(key));
  state->ledger.emplace(
      Ledger::create(place.ledger, plan.to_json(), place.most_steps.value_or(plan.steps),
                     state->key, state->witnessed(), place.initial, place.data_manifest_hash));
  return MechanismSession(std::move(state));
}

MechanismSession MechanismSession::resume(const MechanismPlan& plan, const SessionPlace& place,
                                          SecureKey key, const Checkpoint* checkpoint) {
  auto state = std::make_unique<State>(plan, place, std::move(key));
  const LedgerSummary found = verify_ledger(place.ledger);
  check_records(found, place);
  std::optional<ForgottenCharges> forgotten;
  if (state->witness) forgotten = state->witness->check(found);
  // The head that the checkpoint saw must still be in the chain: no lines were cut from the end.
  state->ledger.emplace(Ledger::open(
      place.ledger, checkpoint ? checkpoint->state.value("ledger_head", "") : std::string{}));
  const auto frozen = MechanismPlan::from_json(nlohmann::json::parse(state->ledger->plan()));
  state->plan.version = frozen.version;
  const std::string difference = frozen.describe_difference(plan);
  if (!difference.empty())
    throw PrivacyError("the mechanism of a run is frozen, but the configuration differs:\n" +
                       difference);
  check_same_start(found.initial_weights, place.initial, place.ledger.string());
  if (checkpoint) check_checkpoint(*checkpoint, found, place.ledger);
  if (forgotten) {
    state->ledger->charge_forgotten(*forgotten);
    log_warning(fmt::format(
        "this copy of the run is older than what the record store remembers, or lies elsewhere "
        "than "
        "the run that it last heard of: {} steps that it has forgotten, or may have, are charged "
        "now",
        forgotten->steps));
  }
  state->ledger->resume(state->key, state->witnessed());
  return MechanismSession(std::move(state));
}

void MechanismSession::lead(std::shared_ptr<Communicator> ranks) {
  if (ranks->alone()) return;
  check_noise_keys(*ranks, state_->key);
  state_->shared_key.emplace(share_sampling_key(*ranks, state_->key));
  state_->shared_sampler.emplace(*state_->shared_key, state_->plan.sample_rate);
  state_->ranks = std::move(ranks);
}

std::vector<std::int64_t> MechanismSession::sample(std::int64_t step, std::int64_t records) const {
  return (state_->shared_sampler ? *state_->shared_sampler : state_->sampler).draw(step, records);
}

std::vector<std::int64_t> MechanismSession::sample(const StagePlan& stage,
                                                   std::int64_t records) const {
  const Planned own = planned(state_->plan, stage);
  return PoissonSampler::of_stage(state_->key, own.phase.sample_rate, own.place)
      .draw(state_->ledger->charged_releases(stage.name), records);
}

NoisyGradient MechanismSession::release(ClippedSum&& sum, std::int64_t step) {
  // On disk before the noise exists, on any rank: a crash can over-count, never under-count.
  const auto charged = [&] {
    check_bound(sum, state_->plan);
    return state_->ledger->charge(step, state_->key);
  };
  ChargedStep charge = state_->ranks ? tell_of_charge(*state_->ranks, charged) : charged();
  return noised(std::move(sum), state_->plan, state_->key, std::move(charge));
}

std::vector<double> MechanismSession::release(StatisticSum&& sum, const StagePlan& stage) {
  const Phase phase = planned(state_->plan, stage).phase;
  if (sum.clip_norm_l2() != stage.clip_norm_l2)
    throw PrivacyError(
        fmt::format("a sum clipped to {} is none of the stage '{}', whose bound is {}",
                    sum.clip_norm_l2(), stage.name, stage.clip_norm_l2));
  check_sensitivity(sum, stage, state_->plan.adjacency);
  // On disk before the noise exists, as above.
  ChargedStep charge = state_->ledger->charge_stage(stage.name, state_->key);
  return release_statistic(std::move(sum), phase.noise_multiplier, state_->key, std::move(charge));
}

std::int64_t MechanismSession::steps_left() const {
  return state_->ledger->max_charged_steps() - state_->ledger->charged_steps();
}

double MechanismSession::epsilon() const {
  return state_->plan.epsilon_after(state_->ledger->charged_steps());
}

void MechanismSession::checkpoint(Checkpoint& checkpoint) {
  Ledger& ledger = *state_->ledger;
  ledger.record_event("checkpoint",
                      {{"step", checkpoint.step}, {"checkpoint", checkpoint_sha256(checkpoint)}});
  checkpoint.state["plan_hash"] = ledger.plan_hash();
  checkpoint.state["ledger_head"] = ledger.head_hash();
  checkpoint.state["charged_steps"] = ledger.charged_steps();
}

void MechanismSession::record_result(const std::string& stage, const std::string& sha256) {
  state_->ledger->record_result(stage, sha256);
}

void MechanismSession::record_release(const ReleasedFiles& released) {
  if (state_->ledger->released() != released) state_->ledger->record_release(released);
}

void MechanismSession::stop(std::int64_t step, const std::string& reason) {
  state_->ledger->record_event("stop", {{"step", step}, {"reason", reason}});
  remember(/*stopped=*/true);
}

void MechanismSession::remember(bool stopped) {
  for (auto* keeper : {&state_->witness, &state_->of_held_out})
    if (*keeper) (*keeper)->write(*state_->ledger, state_->place.run, stopped);
}

const MechanismPlan& MechanismSession::plan() const { return state_->plan; }
const Ledger& MechanismSession::ledger() const { return *state_->ledger; }

struct FollowingSession::State {
  MechanismPlan plan;
  std::shared_ptr<Communicator> ranks;
  SecureKey key;  // released gradients hold references to it
  ToldCharges charges;
  SamplingKey sampling_key;
  PoissonSampler sampler;

  State(const MechanismPlan& frozen, std::shared_ptr<Communicator> with, SecureKey noise_key)
      : plan(frozen),
        ranks(std::move(with)),
        key(std::move(noise_key)),
        charges(key),
        sampling_key((check_noise_keys(*ranks, key), share_sampling_key(*ranks, key))),
        sampler(sampling_key, plan.sample_rate) {}
};

FollowingSession::FollowingSession(const MechanismPlan& plan, std::shared_ptr<Communicator> ranks,
                                   SecureKey key)
    : state_(std::make_unique<State>(plan, std::move(ranks), std::move(key))) {}

FollowingSession::~FollowingSession() = default;
FollowingSession::FollowingSession(FollowingSession&&) noexcept = default;

std::vector<std::int64_t> FollowingSession::sample(std::int64_t step, std::int64_t records) const {
  return state_->sampler.draw(step, records);
}

NoisyGradient FollowingSession::release(ClippedSum&& sum, std::int64_t step) {
  ChargedStep charge = hear_of_charge(*state_->ranks, state_->charges, step);
  check_bound(sum, state_->plan);
  return noised(std::move(sum), state_->plan, state_->key, std::move(charge));
}

const MechanismPlan& FollowingSession::plan() const { return state_->plan; }

}  // namespace sfumato
