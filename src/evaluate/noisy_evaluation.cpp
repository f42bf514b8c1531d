#include "sfumato/evaluate/noisy_evaluation.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "evaluate/evaluated_run.h"
#include "evaluate/stage_release.h"
#include "run/release_card.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/log.h"
#include "sfumato/core/sha256.h"
#include "sfumato/data/store_manifest.h"
#include "sfumato/io/json_file.h"
#include "sfumato/mechanism/accuracy.h"
#include "sfumato/mechanism/frechet_distance.h"
#include "sfumato/mechanism/session.h"
#include "sfumato/report/privacy_card.h"
#include "sfumato/run/checkpoint.h"
#include "sfumato/run/witness.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

using Releases = std::vector<std::unique_ptr<StageRelease>>;

/// What a stage releases, ready for its noise.
struct Measured {
  StageRelease* release;
  StatisticSum sum;
};

/// Of the metrics that were asked for; none: whatever is planned.
std::vector<std::string_view> stages_of(const std::vector<Metric>& metrics) {
  std::vector<std::string_view> stages;
  for (const Metric metric : metrics) {
    if (metric != Metric::kAccuracy && metric != Metric::kFrechetDistance)
      throw UsageError(fmt::format(
          "{} is not released with noise; {} and {} are, where the run's "
          "mechanism planned them",
          to_string(metric), to_string(Metric::kAccuracy), to_string(Metric::kFrechetDistance)));
    stages.push_back(metric == Metric::kAccuracy ? kAccuracyStage : kFrechetDistanceStage);
  }
  return stages;
}

ImageSets open_sets(const NoisyEvaluationRequest& request) {
  SetRequest reference;
  reference.path = request.reference;
  return open_image_sets(request.corpus, reference);
}

Releases releases_of(const ReleaseInput& input) {
  Releases releases;
  for (const EvaluatedStage& stage : input.run.stages)
    releases.push_back(stage_release(input, stage));
  const bool with_features = std::ranges::any_of(input.run.stages, [](const EvaluatedStage& stage) {
    return stage.plan.name == kFrechetDistanceStage;
  });
  if (!with_features && !input.request.options.weights.empty())
    throw UsageError(
        fmt::format("no feature network takes the weights '{}', as no distance is released; leave "
                    "out --weights",
                    input.request.options.weights.string()));
  return releases;
}

/// An interruption came between the ledger's note and the card.
void warn_if_card_is_behind(const EvaluatedRun& run, const nlohmann::ordered_json& card) {
  for (const EvaluatedStage& of_run : run.stages) {
    const auto is_noted = [&](const nlohmann::ordered_json& stage) {
      return stage.value("name", "") == of_run.plan.name && stage.value("charged", 0) > 0;
    };
    if (std::ranges::any_of(card.value("stages", nlohmann::ordered_json::array()), is_noted))
      continue;
    log_warning(fmt::format(
        "the privacy card of the run in '{}' does not say yet that its {} was released; {} "
        "writes it again",
        run.directory.path().string(), of_run.plan.name, resume_command(run.directory.path())));
  }
}

void write_card_again(const EvaluatedRun& run, const RecordStore& store, const Ledger& ledger) {
  write_card(run.directory.release(), card_of_ledger(run.plan, ledger), ledger.released(), store,
             ledger.initial_weights(), *run.config);
}

/// What makes a number that costs minutes a number that is had once: a copy of the run, or another
/// run on the same images, would else know nothing of it.
/// Asked before minutes of measuring; the session asks again, and at every charge.
void require_witness(const EvaluatedRun& run, const RecordStore& store,
                     const RecordStore& reference) {
  (void)WitnessKeeper(store.path(), WitnessDuty::kRefuses).check(run.ledger);
  if (reference.manifest_hash() == store.manifest_hash()) return;
  const WitnessKeeper of_held_out(reference.path(), WitnessDuty::kRefuses);
}

/// The session ends in the ledger as well, whatever broke it.
void end_broken(MechanismSession& session, std::int64_t step) {
  try {
    session.stop(step, "evaluation not released");
  } catch (const std::exception& error) {
    log_warning(fmt::format("the ledger does not note the end of the session: {}", error.what()));
  }
}

/// Charges, draws the noise and writes what follows, in this order, stage by stage.
void release_all(const EvaluatedRun& run, const RecordStore& store, const RecordStore& reference,
                 std::vector<Measured> measured, SecureKey key) {
  const auto newest = newest_checkpoint(run.directory.checkpoints());
  std::optional<Checkpoint> checkpoint;
  if (newest) checkpoint = read_checkpoint(*newest);
  const std::int64_t step = checkpoint ? checkpoint->step : 0;
  SessionPlace place{.ledger = run.directory.ledger(),
                     .run = run.directory.path(),
                     .store = store.path(),
                     .initial = run.ledger.initial_weights.value_or(InitialWeights{}),
                     .must_be_witnessed = true,
                     .data_manifest_hash = store.manifest_hash()};
  // Held-out images remember it as well: something is released that they decide.
  if (reference.manifest_hash() != store.manifest_hash()) place.held_out = reference.path();
  MechanismSession session = MechanismSession::resume(run.plan, place, std::move(key),
                                                      checkpoint ? &*checkpoint : nullptr);
  try {
    for (Measured& one : measured) {
      const EvaluatedStage& stage = one.release->stage();
      const std::vector<double> noisy = session.release(std::move(one.sum), stage.plan);
      write_json_atomic(stage.result, one.release->take(noisy));
      session.record_result(stage.plan.name, sha256_hex(read_file(stage.result)));
    }
  } catch (...) {
    end_broken(session, step);
    throw;
  }
  session.stop(step, "evaluation released");
  write_card_again(run, store, session.ledger());
}

/// Takes what was released before, and releases the rest; whether there was any.
bool measure_and_release(EvaluatedRun& run, const RecordStore& store, const RecordStore& reference,
                         const Releases& releases, const std::function<SecureKey()>& key) {
  const auto made_before = [&](StageRelease& release) {
    if (!run.is_charged(release.stage())) return false;
    release.take_earlier();
    return true;
  };
  std::vector<StageRelease*> due;
  for (const auto& release : releases)
    if (!made_before(*release)) due.push_back(release.get());
  if (due.empty()) return false;
  check_verifies(run, store);
  require_witness(run, store, reference);
  reference.verify_checksums();
  std::vector<Measured> measured;
  for (StageRelease* release : due) measured.push_back({release, release->sum()});
  SecureKey noise_key = key();
  // Measuring takes minutes, in which another process may have released the same.
  read_ledger_again(run);
  std::erase_if(measured, [&](const Measured& one) { return made_before(*one.release); });
  if (measured.empty()) return false;
  release_all(run, store, reference, std::move(measured), std::move(noise_key));
  return true;
}

NoiseStatement statement_of(const EvaluatedRun& run, const Releases& releases,
                            const nlohmann::ordered_json& card) {
  NoiseStatement out;
  for (const auto& release : releases) out.stages.push_back(release->statement());
  out.tested_on = releases.front()->facts().tested_on;
  out.epsilon = run.plan.epsilon_after(run.ledger.charged_steps);
  out.delta = run.plan.delta;
  out.unit = run.plan.unit;
  out.adjacency = to_string(run.plan.adjacency);
  out.accountant = to_string(run.plan.accountant);
  out.claim_stands = card["status"] == "private";
  return out;
}

Evaluation evaluation_of(const EvaluatedRun& run, const Releases& releases) {
  Evaluation out;
  out.status = ReferenceStatus::kReleasedWithNoise;
  std::vector<std::string> names;
  for (const auto& release : releases) release->report(out);
  for (const EvaluatedStage& stage : run.stages) names.push_back(stage.plan.name);
  out.left_out.push_back(
      fmt::format("everything else: each number of private images that leaves is planned and "
                  "charged, and what was asked for of the mechanism is {}",
                  fmt::join(names, " and ")));
  if (run.plan.version < kMeasuresSince)
    out.warnings.emplace_back(
        "the run's ledger, begun by an older version, does not freeze what these stages measure: "
        "features, dimension and divisors are those of its config.yaml, on the word of whoever "
        "holds it");
  return out;
}

/// Of private images that say no more than is public: neither how many there are nor the name of
/// their folder, which could tell of whom they are.
ReportedSet reference_of(const NoisyRelease& made) {
  ReportedSet out;
  out.name = made.tested_on;
  out.identity = made.reference;
  out.split = made.tested_on;
  out.found = out.used = std::llround(made.expected_records);
  return out;
}

}  // namespace

NoisyEvaluation evaluate_with_noise(const NoisyEvaluationRequest& request,
                                    const std::function<SecureKey()>& key) {
  EvaluatedRun run = open_evaluated_run(request.run, stages_of(request.options.metrics));
  if (!is_record_store(request.reference))
    throw PrivacyError(fmt::format(
        "'{}' is no record store, and the mechanism of the run in '{}' pays for a number of the "
        "images of its own; name the run's record store, or what prepare held out of it",
        request.reference.string(), request.run.string()));
  const RecordStore reference = RecordStore::open(request.reference);
  const RecordStore store = store_of_run(run, reference);
  const ImageSets sets = open_sets(request);
  check_corpus_of(run, sets.corpus, request.corpus.path);
  const ReleaseInput input{request, run, sets, reference};
  const Releases releases = releases_of(input);
  const bool is_new = measure_and_release(run, store, reference, releases, key);
  NoisyEvaluation out{evaluation_of(run, releases),
                      reported(sets.corpus),
                      reference_of(releases.front()->facts()),
                      {},
                      !is_new};
  for (const EvaluatedStage& stage : run.stages) {
    out.files.push_back(stage.result);
    if (!is_new) log_info(fmt::format("released before: '{}'", stage.result.string()));
  }
  const auto card = read_privacy_card(run.directory.release() / "privacy_card.json");
  warn_if_card_is_behind(run, card);
  out.evaluation.noise = statement_of(run, releases, card);
  return out;
}

}  // namespace sfumato
