#include "evaluate/evaluated_run.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>

#include "run/store_origin.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/sha256.h"
#include "sfumato/data/holdout.h"
#include "sfumato/io/json_file.h"
#include "sfumato/mechanism/accuracy.h"
#include "sfumato/mechanism/frechet_distance.h"
#include "sfumato/run/run_progress.h"
#include "sfumato/run/run_verification.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

constexpr const char* kOtherwise =
    "leave out --release-with-noise, and the numbers stay with the images' holder";

LedgerSummary sound_ledger(const RunDirectory& run) {
  if (!fs::exists(run.ledger()))
    throw PrivacyError(fmt::format(
        "'{}' is not there: the run was trained without privacy, or has lost what it charged, and "
        "no noise protects numbers of its images; put the file back if it was lost, or {}",
        run.ledger().string(), kOtherwise));
  LedgerSummary ledger = verify_ledger(run.ledger());
  if (!ledger.problems.empty())
    throw PrivacyError(fmt::format("the ledger '{}' is damaged: {}; nothing is released on it",
                                   run.ledger().string(), ledger.problems.front()));
  if (ledger.insecure())
    throw PrivacyError(fmt::format(
        "the claim of the run in '{}' is VOID: a session drew its noise from a test key; {}",
        run.path().string(), kOtherwise));
  return ledger;
}

constexpr std::string_view kEvaluations[] = {kAccuracyStage, kFrechetDistanceStage};

/// Those stages of the plan that were asked for by name; without names, all that an evaluation
/// releases.
std::vector<EvaluatedStage> planned_evaluations(const MechanismPlan& plan, const Config& config,
                                                const RunDirectory& run,
                                                const std::vector<std::string_view>& asked) {
  if (plan.selection)
    throw PrivacyError(fmt::format(
        "the run in '{}' is one of a private selection, of which nothing leaves but what the best "
        "run released: no number of its private images can be added; {}",
        run.path().string(), kOtherwise));
  const std::vector<StageFile> files = stage_files(config);
  std::vector<EvaluatedStage> stages;
  for (const StagePlan& stage : plan.stages) {
    const bool wanted = asked.empty()
                            ? std::ranges::find(kEvaluations, stage.name) != std::end(kEvaluations)
                            : std::ranges::find(asked, stage.name) != asked.end();
    if (stage.declared || !wanted) continue;
    stages.push_back(
        {stage, run.release() / std::ranges::find(files, stage.name, &StageFile::stage)->file});
  }
  const auto is_missing = [&](std::string_view name) {
    return std::ranges::none_of(
        stages, [&](const EvaluatedStage& stage) { return stage.plan.name == name; });
  };
  std::vector<std::string_view> missing(asked);
  if (asked.empty() && stages.empty())
    missing.assign(std::begin(kEvaluations), std::end(kEvaluations));
  std::erase_if(missing, [&](std::string_view name) { return !is_missing(name); });
  if (missing.empty()) return stages;
  throw PrivacyError(fmt::format(
      "the mechanism of the run in '{}' was frozen without {}, and what is measured on its private "
      "images now would be in nobody's ε. Set noise_multiplier, epsilon or share of "
      "mechanism.stages.{} before training, or {}",
      run.path().string(), asked.empty() ? "an evaluation" : "the evaluation that was asked for",
      fmt::join(missing, " or mechanism.stages."), kOtherwise));
}

std::string card_text(const nlohmann::ordered_json& json, const char* key) {
  const auto at = json.is_object() ? json.find(key) : json.end();
  return at != json.end() && at->is_string() ? at->get<std::string>() : std::string();
}

/// The keyed hash of the store that the run was trained on, as its card says; the ledger notes what
/// that says of the data.
std::string released_manifest(const RunDirectory& run) {
  return card_text(nlohmann::ordered_json(read_json(run.release() / "privacy_card.json")),
                   "data_manifest_hash");
}

}  // namespace

bool EvaluatedRun::is_charged(const EvaluatedStage& stage) const {
  const auto charges = ledger.stage_charges.find(stage.plan.name);
  return charges != ledger.stage_charges.end() && charges->second > 0;
}

EvaluatedRun open_evaluated_run(const fs::path& path, const std::vector<std::string_view>& asked) {
  RunDirectory directory = RunDirectory::look_at(path);
  LedgerSummary ledger = sound_ledger(directory);
  MechanismPlan plan =
      MechanismPlan::from_json(parse_json(ledger.plan, "the plan in " + ledger.path.string()));
  std::unique_ptr<Config> config = load_config(directory.config(), {});
  std::vector<EvaluatedStage> stages = planned_evaluations(plan, *config, directory, asked);
  if (const RunProgress progress = run_progress(path); !progress.finished)
    throw PrivacyError(fmt::format(
        "the run in '{}' is not finished: {} of {} steps are charged, or the card of "
        "its release is missing; finish it with {}",
        path.string(), progress.charged_steps, progress.planned_steps, resume_command(path)));
  return {std::move(directory), std::move(config), std::move(ledger), std::move(plan),
          std::move(stages)};
}

void read_ledger_again(EvaluatedRun& run) { run.ledger = sound_ledger(run.directory); }

RecordStore store_of_run(const EvaluatedRun& run, const RecordStore& reference) {
  const std::string manifest = released_manifest(run.directory);
  const fs::path& named = run.config->data.store();
  std::optional<RecordStore> own;
  if (fs::is_directory(named)) own.emplace(RecordStore::open(named));
  if (own && own->manifest_hash() != manifest) own.reset();
  if (reference.manifest_hash() == manifest)
    return own ? std::move(*own) : RecordStore::open(reference.path());
  const auto refuse = [&](const std::string& why) {
    throw PrivacyError(fmt::format(
        "'{}' is not the record store of the run in '{}': {}. Its mechanism pays for a number of "
        "its own images and of those that prepare held out of them; name one of the two, or {}",
        reference.path().string(), run.directory.path().string(), why, kOtherwise));
  };
  if (!is_holdout(reference)) refuse("the run was trained on another");
  if (!own)
    throw DataError(fmt::format(
        "the record store '{}' that the run was trained on is not here, and whether '{}' was held "
        "out of it cannot be told; put it back",
        named.string(), reference.path().string()));
  try {
    check_holdout_of(*own, reference);
  } catch (const DataError& error) {
    refuse(error.what());
  }
  // Of runs on the two parts of a set the larger sum counts, as a record is in one of them: images
  // that were held out of both would be in both sums.
  if (!origin_of(own->path()).split_of.empty())
    refuse("it was held out of a set that a sweep has split, both of whose parts it lies beside");
  if (reference.unit() != own->unit()) refuse("its unit of privacy is " + reference.unit());
  return std::move(*own);
}

void check_corpus_of(const EvaluatedRun& run, const ImageSet& corpus, const fs::path& place) {
  const auto refuse = [&](const std::string& why) {
    throw PrivacyError(fmt::format(
        "the corpus '{}' was not drawn from what the run in '{}' released: {}. What trains the "
        "classifiers must have been released before; name a corpus that sfumato sample {} wrote",
        place.string(), run.directory.path().string(), why, run.directory.path().string()));
  };
  const fs::path card_file = place / "privacy_card.json", lineage_file = place / "lineage.json";
  if (!fs::is_regular_file(card_file) || !fs::is_regular_file(lineage_file))
    refuse("no privacy_card.json and lineage.json lie beside its images");
  if (card_text(corpus.card, "status") != "private") refuse("its card claims no privacy");
  const std::pair<const char*, std::string> expected[] = {
      {"weights_sha256", run.ledger.released.weights},
      {"plan_hash", run.ledger.plan_hash},
      {"data_manifest_hash", released_manifest(run.directory)}};
  for (const auto& [key, value] : expected)
    if (card_text(corpus.card, key) != value)
      refuse(fmt::format("{} of its card is {}, and of the run {}", key,
                         card_text(corpus.card, key), value));
  if (card_text(nlohmann::ordered_json(read_json(lineage_file)), "privacy_card_sha256") !=
      sha256_hex(read_file(card_file)))
    refuse("its lineage.json was written beside another card");
}

void check_verifies(const EvaluatedRun& run, const RecordStore& store) {
  RunVerificationOptions options;
  options.run = run.directory.path();
  options.store = store.path();
  const std::vector<std::string> problems = verify_run(options).problems();
  if (!problems.empty())
    throw PrivacyError(
        fmt::format("the run in '{}' does not verify, and nothing is added to it: {}",
                    run.directory.path().string(), problems.front()));
}

void check_result_is_there(const EvaluatedRun& run, const EvaluatedStage& stage) {
  const auto noted = run.ledger.stage_results.find(stage.plan.name);
  const std::string file = stage.result.string();
  if (noted == run.ledger.stage_results.end())
    throw PrivacyError(fmt::format(
        "the release of {} is charged in '{}', but an interruption lost what it paid for{}. "
        "Noise may have been seen, so the charge is spent and no other number is drawn; the run, "
        "whose ε counted it from the start, stands as it is (if its card is behind its ledger, {} "
        "writes it again)",
        stage.plan.name, run.ledger.path.string(),
        fs::exists(stage.result) ? fmt::format(" ('{}' is not noted there; move it away)", file)
                                 : "",
        resume_command(run.directory.path())));
  const std::string found =
      fs::exists(stage.result) ? sha256_hex(read_file(stage.result)) : "missing";
  if (found != noted->second)
    throw PrivacyError(fmt::format(
        "'{}' is {}, and the ledger notes {} as the {} that was released; put the released "
        "file back: it is drawn once",
        file, found == "missing" ? found : "another file, of SHA-256 " + found, noted->second,
        stage.plan.name));
}

}  // namespace sfumato
