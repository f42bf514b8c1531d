#include "train/run_record.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/generate/families.h"
#include "sfumato/models/tensor_file.h"
#include "sfumato/run/selection_mark.h"
#include "train/release.h"
#include "train/settings_history.h"

namespace sfumato {

RunRecord::RunRecord(const Config& config, const RecordStore& store, bool resume)
    : config_(config),
      store_(store),
      resumes_(resume),
      run_(resume ? RunDirectory::open(config.run.dir()) : RunDirectory::choose(config.run.dir())) {
}

void RunRecord::note_start(const MechanismPlan& plan, const NamedGroups& state) {
  start_ = find_initial_weights(config_, store_, plan, family_of(config_).load_weights);
  const bool start_is_public = start_.origin == "scratch" || start_.origin == "public";
  memory_.emplace(store_.path(), joined(state), start_is_public);
}

std::optional<Checkpoint> RunRecord::begin() {
  if (!resumes_) {
    run_ = RunDirectory::create(run_.path());
    try {
      write_file_atomic(run_.config(), config_.resolved_yaml());
    } catch (...) {
      run_.withdraw();
      throw;
    }
    return std::nullopt;
  }
  const auto newest = newest_checkpoint(run_.checkpoints());
  if (!newest) return std::nullopt;
  Checkpoint checkpoint = read_checkpoint(*newest);
  if (checkpoint.state.value("manifest_hash", "") != store_.manifest_hash())
    throw PrivacyError(
        "the record store is not the one that this run was started with; set "
        "data.store to the original store");
  return checkpoint;
}

void RunRecord::withdraw() const {
  if (!resumes_) run_.withdraw();
}

void RunRecord::accept(int64_t step) const {
  if (!resumes_) return;
  note_changed_settings(run_, config_, step);
  write_file_atomic(run_.config(), config_.resolved_yaml());
}

void RunRecord::save(int64_t step, const NamedGroups& groups, const Generator& generator,
                     TrainingMechanism& mechanism) {
  if (const std::string defect = generator.defect(); !defect.empty())
    throw DataError(fmt::format(
        "{} after step {}: this checkpoint is not written. {} a smaller "
        "optimizer.learning_rate; steps since stay charged",
        defect, step,
        newest_checkpoint(run_.checkpoints())
            ? "Continue from the last with --resume and"
            : "There is none before it: begin anew, with --resume if steps are left to charge, and "
              "take"));
  const NamedGroups state = generator.state();
  Checkpoint checkpoint;
  checkpoint.step = step;
  for (const auto& [name, tensors] : groups)
    checkpoint.groups.push_back(tensor_group(name, tensors));
  checkpoint.state = {{"manifest_hash", store_.manifest_hash()}};
  mechanism.note(checkpoint);
  // First: a copy of what is written must not be unknown to the store.
  const NamedTensors kept = joined(state);
  memory_->remember(mechanism.known_weights(), {kept});
  write_checkpoint(run_.checkpoints(), checkpoint);
  prune_checkpoints(run_.checkpoints(), config_.run.keep_last(), config_.run.keep_every());
  mechanism.remember(/*stopped=*/false);
}

TrainResult RunRecord::release(int64_t steps, const Generator& generator,
                               TrainingMechanism& mechanism) {
  mechanism.check_trained(steps);
  const MechanismPlan plan = mechanism.known_weights().plan;
  const ReleaseInputs inputs{
      config_,
      plan,
      generator,
      store_,
      run_,
      start_,
      [&](const NamedTensors& weights) { memory_->remember(mechanism.known_weights(), {weights}); },
      mechanism.session()};
  const bool may_leave =
      !plan.selection ||
      selection_defect(run_.path(), plan, verify_ledger(run_.ledger()), config_.run.sweep())
          .empty();
  if (may_leave)
    write_release(inputs);
  else
    write_candidate(inputs);
  mechanism.remember(/*stopped=*/true);
  return {steps, mechanism.charged(), mechanism.epsilon(),
          may_leave ? run_.release() : std::filesystem::path()};
}

}  // namespace sfumato
