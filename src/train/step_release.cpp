#include "sfumato/train/step_release.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "run/checkpoint_binding.h"
#include "run/release_card.h"
#include "run/run_card.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/text.h"
#include "sfumato/generate/families.h"
#include "sfumato/io/json_file.h"
#include "sfumato/mechanism/initial_weights.h"
#include "sfumato/mechanism/plan.h"
#include "sfumato/mechanism/released_weights.h"
#include "sfumato/models/tensor_file.h"
#include "sfumato/run/checkpoint.h"
#include "train/release.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

/// Also of an unfinished run: whoever chooses may have seen what all its steps released, and may
/// yet see the rest.
std::int64_t steps_of_plan(const LedgerSummary& ledger) {
  return std::max(ledger.charged_steps, ledger.max_charged_steps);
}

/// What the ledger proves of a checkpoint, and the claim of all that its plan allows.
PrivacyCard card_of_plan(const LedgerSummary& ledger, const Checkpoint& checkpoint,
                         std::int64_t step) {
  if (!ledger.problems.empty())
    throw PrivacyError(fmt::format("the ledger '{}' is damaged: {}; nothing is released on it",
                                   ledger.path.string(), ledger.problems.front()));
  std::int64_t line = 0;
  if (const std::string defect = checkpoint_defect(ledger, checkpoint, step, line); !defect.empty())
    throw PrivacyError(
        fmt::format("the checkpoint of step {}: {}; it is not released", step, defect));
  const auto plan = MechanismPlan::from_json(nlohmann::json::parse(ledger.plan));
  if (plan.selection)
    throw PrivacyError(
        "a run of a private selection: nothing leaves but what sfumato sweep releases of the "
        "winner");
  ChargedReleases whole{steps_of_plan(ledger), ledger.stage_charges, ledger.stage_results};
  PrivacyCard card = claim_card(plan, whole);
  card.ledger_head_hash = ledger.head_hash;
  card.checkpoint_step = step;
  if (ledger.insecure()) {
    card.status = PrivacyCard::Status::kVoid;
    card.reasons.emplace_back(kTestKeyReason);
  }
  return card;
}

/// Takes the generator, on the CPU, from its start to what the checkpoint has.
void load(Generator& generator, const Checkpoint& checkpoint) {
  NamedGroups groups;
  for (const TensorGroup& group : checkpoint.groups)
    if (group.name != kOptimizerGroup) groups.emplace_back(group.name, to_tensors(group));
  generator.load_state(groups);
}

/// As the card counts them: whoever starts from the weights pays for every step of the plan.
KnownWeights known_weights(const LedgerSummary& ledger) {
  KnownWeights known;
  known.plan = MechanismPlan::from_json(nlohmann::json::parse(ledger.plan));
  known.run_id = ledger.run_id;
  known.is_private = !ledger.insecure();
  known.charged_steps = steps_of_plan(ledger);
  return known;
}

}  // namespace

nlohmann::ordered_json release_step(const fs::path& run, std::int64_t step,
                                    const fs::path& folder) {
  const RunDirectory directory = RunDirectory::look_at(run);
  if (step == 0)
    throw UsageError(
        "step 0 has no trained weights: no private step was taken yet; name a later one");
  const Checkpoint checkpoint = read_checkpoint(checkpoint_of_step(directory.checkpoints(), step));
  const auto config = load_config(directory.config(), {});
  const RecordStore store = RecordStore::open(config->data.store());
  if (checkpoint.state.value("manifest_hash", "") != store.manifest_hash())
    throw DataError(
        fmt::format("'{}' is not the record store that the run was trained on, and what the card "
                    "says of the data comes from there; put it back",
                    store.path().string()));
  PrivacyCard card;
  KnownWeights known;
  std::optional<InitialWeights> start;
  if (fs::exists(directory.ledger())) {
    const LedgerSummary ledger = verify_ledger(directory.ledger());
    card = card_of_plan(ledger, checkpoint, step);
    known = known_weights(ledger);
    start = ledger.initial_weights;
  } else if (config->privacy.enabled()) {
    throw PrivacyError(fmt::format(
        "the ledger '{}' is missing: what this run has spent is no longer known; put the file back",
        directory.ledger().string()));
  } else {
    known.plan = make_plan(*config, store);
    card = plain_card(known.plan);
    start = find_initial_weights(*config, store, known.plan, family_of(*config).load_weights);
  }
  const std::unique_ptr<Generator> generator = make_generator(*config, Placement{});
  const bool start_is_public = start && (start->origin == "scratch" || start->origin == "public");
  WeightsMemory memory(store.path(), joined(generator->state()), start_is_public);
  load(*generator, checkpoint);
  // First: what has left is never unknown to the store.
  const NamedTensors weights = generator->released_weights();
  memory.remember(known, {weights});
  make_folder(folder);
  fs::remove(folder / "privacy_card.json");  // until what it speaks of is whole
  const ReleasedFiles released = save_release(*generator, folder, store, *config);
  // A histogram goes along: sample draws in its proportions, and the card counts it.
  for (const StageFile& stage : stage_files(*config))
    if (fs::exists(directory.release() / stage.file))
      write_file_atomic(folder / stage.file, read_file(directory.release() / stage.file));
  return write_card(folder, std::move(card), released, store, start, *config);
}

std::optional<std::pair<fs::path, std::int64_t>> run_at_step(const std::string& text) {
  const std::size_t at = text.rfind('@');
  if (at == std::string::npos || at == 0 || fs::exists(text)) return std::nullopt;
  const std::string run = text.substr(0, at);
  const auto step = parse_int64(text.substr(at + 1));
  if (!step || *step < 0 || !fs::is_directory(run)) return std::nullopt;
  return std::pair<fs::path, std::int64_t>(run, *step);
}

}  // namespace sfumato
