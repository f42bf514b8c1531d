#include "sfumato/evaluate/released_accuracy.h"

#include <ATen/ops/from_blob.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "evaluate/classifier_scores.h"
#include "evaluate/evaluated_run.h"
#include "run/release_card.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/log.h"
#include "sfumato/core/sha256.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/data/holdout.h"
#include "sfumato/data/store_manifest.h"
#include "sfumato/evaluate/classifier.h"
#include "sfumato/io/json_file.h"
#include "sfumato/mechanism/session.h"
#include "sfumato/mechanism/stage.h"
#include "sfumato/report/privacy_card.h"
#include "sfumato/run/checkpoint.h"
#include "sfumato/run/witness.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

constexpr const char *kTrainingImages = "training images", *kHeldOutImages = "held-out images";

/// A public literal: no setting follows from the private images.
double public_divisor(const NoisyEvaluationRequest& request, const Config& config, bool held_out) {
  if (request.expected_records > 0) return request.expected_records;
  if (config.accuracy.expected_records() > 0) return config.accuracy.expected_records();
  const double all = config.mechanism.expected_batch_size() / config.mechanism.sample_rate();
  if (!held_out) return all;
  const double share = config.data.holdout();
  if (share == 0)
    throw UsageError(
        "by how many held-out images the right answers are to be divided is not known: "
        "data.holdout is 0 in the run's config.yaml; give a public number in --expected-records "
        "(their exact number is private)");
  return all * share / (1 - share);
}

/// All that the classifiers learn from.
std::vector<std::vector<Classifier>> trained(const LabelledImages& corpus,
                                             const EvaluationOptions& options) {
  std::vector<std::vector<Classifier>> classifiers;
  for (const ClassifierKind kind : options.classifiers) {
    std::vector<Classifier>& of_kind = classifiers.emplace_back();
    for (std::int64_t i = 0; i < options.repeats; ++i) {
      ClassifierOptions one = options.classifier;
      one.kind = kind;
      one.seed = options.seed + static_cast<std::uint64_t>(i);
      log_info(fmt::format("training a classifier ({}) on {} synthetic images", to_string(kind),
                           corpus.count()));
      of_kind.emplace_back(corpus, one);
    }
  }
  return classifiers;
}

/// One image at a time: in a batch, what a network computes may hang on the others by a last bit.
StatisticSum count_on(const RecordStore& store, const StagePlan& stage,
                      const std::vector<std::vector<Classifier>>& classifiers) {
  return count_right_answers(
      stage, store.count(), std::ssize(classifiers),
      [&](std::int64_t record, std::span<float> right) {
        if (stop_requested()) throw Interrupted("stopped; nothing was charged or written");
        const at::Tensor image =
            at::from_blob(const_cast<std::uint8_t*>(store.pixels(record).data()),
                          {1, store.height(), store.width(), store.channels()}, at::kByte);
        for (std::size_t i = 0; i < classifiers.size(); ++i)
          for (const Classifier& one : classifiers[i])
            if (one.predict(image).item<std::int64_t>() == store.label(record))
              right[i] += 1 / static_cast<float>(classifiers[i].size());
      });
}

/// What is to be released, but for the numbers.
NoisyAccuracy description(const NoisyEvaluationRequest& request, const EvaluatedRun& run,
                          const ImageSets& sets, bool held_out) {
  NoisyAccuracy out;
  out.noise_stddev = executed_phase(run.stage).noise_multiplier * run.stage.clip_norm_l2;
  out.expected_records = public_divisor(request, *run.config, held_out);
  out.tested_on = held_out ? kHeldOutImages : kTrainingImages;
  out.reference = sets.reference.store->manifest_hash();
  out.corpus = sets.corpus.identity;
  out.weights_sha256 = run.ledger.released.weights;
  out.corpus_images = sets.corpus.images.count();
  out.repeats = request.options.repeats;
  out.seed = request.options.seed;
  for (const ClassifierKind kind : request.options.classifiers) {
    ClassifierOptions one = request.options.classifier;
    one.kind = kind;
    one.seed = request.options.seed;
    out.classifiers.push_back({to_string(kind), classifier_detail(one, out.repeats), 0});
  }
  return out;
}

/// An interruption came between the ledger's note and the card.
void warn_if_card_is_behind(const EvaluatedRun& run, const nlohmann::ordered_json& card) {
  const auto is_noted = [&](const nlohmann::ordered_json& stage) {
    return stage.value("name", "") == run.stage.name && stage.value("charged", 0) > 0;
  };
  if (std::ranges::any_of(card.value("stages", nlohmann::ordered_json::array()), is_noted)) return;
  log_warning(fmt::format(
      "the privacy card of the run in '{}' does not say yet that its accuracy was released; {} "
      "writes it again",
      run.directory.path().string(), resume_command(run.directory.path())));
}

/// The numbers of an earlier request, if it was the same.
NoisyAccuracy made_before(const EvaluatedRun& run, NoisyAccuracy asked) {
  check_result_is_there(run);
  NoisyAccuracy made = read_noisy_accuracy(run.result);
  asked.expected_records = made.expected_records;
  for (std::size_t i = 0; i < std::min(asked.classifiers.size(), made.classifiers.size()); ++i)
    asked.classifiers[i].noisy_right_answers = made.classifiers[i].noisy_right_answers;
  if (asked == made) return made;
  std::vector<std::string> names;
  for (const NoisyAnswers& one : made.classifiers) names.push_back(one.classifier);
  throw PrivacyError(fmt::format(
      "the accuracy of the run in '{}' was released already, once as its mechanism plans it, and "
      "of "
      "something else: a corpus of {} images (SHA-256 {}), on {}, by {} trained {} times from seed "
      "{}. It is in '{}'; another would be in nobody's ε",
      run.directory.path().string(), made.corpus_images, made.corpus, made.tested_on,
      fmt::join(names, ", "), made.repeats, made.seed, run.result.string()));
}

void write_card_again(const EvaluatedRun& run, const RecordStore& store, const Ledger& ledger) {
  write_card(run.directory.release(), card_of_ledger(run.plan, ledger), ledger.released(), store,
             ledger.initial_weights(), *run.config);
}

/// What makes a number that costs minutes a number that is had once: a copy of the run, or another
/// run on the same images, would else know nothing of it.
void require_witness(const fs::path& store, const EvaluatedRun& run) {
  if (WitnessKeeper(store).writable() && read_witness(store, run.ledger.run_id)) return;
  throw PrivacyError(fmt::format(
      "'{}' does not remember the run in '{}' and cannot be made to (uses/ is not there or not "
      "writable): a copy of the run could release its accuracy once more, and nobody would add the "
      "two up; make the record store writable, or leave out --release-with-noise",
      store.string(), run.directory.path().string()));
}

/// Charges, draws the noise and writes what follows, in this order.
void release(const EvaluatedRun& run, const RecordStore& store, const RecordStore& reference,
             StatisticSum&& sum, SecureKey key, NoisyAccuracy& out) {
  const auto newest = newest_checkpoint(run.directory.checkpoints());
  std::optional<Checkpoint> checkpoint;
  if (newest) checkpoint = read_checkpoint(*newest);
  const SessionPlace place{.ledger = run.directory.ledger(),
                           .run = run.directory.path(),
                           .store = store.path(),
                           .initial = run.ledger.initial_weights.value_or(InitialWeights{})};
  MechanismSession session = MechanismSession::resume(run.plan, place, std::move(key),
                                                      checkpoint ? &*checkpoint : nullptr);
  // Held-out images remember it as well: from now on something was released that they decided.
  if (reference.manifest_hash() != store.manifest_hash()) {
    WitnessKeeper(reference.path()).write(session.ledger(), run.directory.path(), true);
    require_witness(reference.path(), run);
  }
  const std::vector<double> noisy = session.release(std::move(sum), run.stage);
  for (std::size_t i = 0; i < noisy.size(); ++i) out.classifiers[i].noisy_right_answers = noisy[i];
  write_json_atomic(run.result, to_json(out));
  session.record_result(run.stage.name, sha256_hex(read_file(run.result)));
  session.stop(checkpoint ? checkpoint->step : 0, "accuracy released");
  write_card_again(run, store, session.ledger());
}

NoiseStatement statement_of(const NoisyAccuracy& made, const EvaluatedRun& run,
                            const nlohmann::ordered_json& card) {
  NoiseStatement out;
  out.noise_stddev = made.noise_stddev;
  out.expected_records = made.expected_records;
  out.tested_on = made.tested_on;
  out.epsilon = run.plan.epsilon_after(run.ledger.charged_steps);
  out.delta = run.plan.delta;
  out.unit = run.plan.unit;
  out.adjacency = to_string(run.plan.adjacency);
  out.accountant = to_string(run.plan.accountant);
  out.claim_stands = card["status"] == "private";
  return out;
}

Evaluation evaluation_of(const NoisyAccuracy& made, const EvaluationOptions& options) {
  Evaluation out;
  out.status = ReferenceStatus::kReleasedWithNoise;
  for (std::size_t i = 0; i < made.classifiers.size(); ++i) {
    Measurement one =
        classifier_measurement("accuracy", "accuracy on real images, trained on the corpus, noisy",
                               options.classifiers[i]);
    one.value = made.accuracy(made.classifiers[i]);
    one.std = made.noise_stddev / made.expected_records;
    one.corpus_images = made.corpus_images;
    one.reference_images = std::llround(made.expected_records);
    one.split = made.tested_on;
    one.detail =
        made.classifiers[i].detail + "; ± is the noise's; N of the reference is the public divisor";
    out.measurements.push_back(std::move(one));
  }
  out.left_out.emplace_back(
      "everything else: each number of private images that leaves is planned and charged, and the "
      "mechanism plans accuracy");
  return out;
}

/// Of private images that say no more than is public: neither how many there are nor the name of
/// their folder, which could tell of whom they are.
ReportedSet reference_of(const NoisyAccuracy& made) {
  ReportedSet out;
  out.name = made.tested_on;
  out.identity = made.reference;
  out.split = made.tested_on;
  out.found = out.used = std::llround(made.expected_records);
  return out;
}

ImageSets open_sets(const NoisyEvaluationRequest& request) {
  SetRequest reference;
  reference.path = request.reference;
  ImageSets sets = open_image_sets(request.corpus, reference);
  if (sets.corpus.images.num_classes() < 2)
    throw UsageError("accuracy needs a corpus and real images with two classes or more in common");
  return sets;
}

}  // namespace

NoisyEvaluation evaluate_with_noise(const NoisyEvaluationRequest& request,
                                    const std::function<SecureKey()>& key) {
  if (request.options.repeats < 1) throw UsageError("--repeats takes 1 or more");
  const EvaluatedRun run = open_evaluated_run(request.run);
  if (!is_record_store(request.reference))
    throw PrivacyError(fmt::format(
        "'{}' is no record store, and the mechanism of the run in '{}' pays for a number of the "
        "images of its own; name the run's record store, or what prepare held out of it",
        request.reference.string(), request.run.string()));
  const RecordStore reference = RecordStore::open(request.reference);
  const RecordStore store = store_of_run(run, reference);
  const ImageSets sets = open_sets(request);
  check_corpus_of(run, sets.corpus, request.corpus.path);
  NoisyAccuracy accuracy = description(request, run, sets, is_holdout(reference));
  (void)count_right_answers(run.stage, 0, std::ssize(accuracy.classifiers), {});
  if (run.charged) {
    accuracy = made_before(run, std::move(accuracy));
    log_info(fmt::format("released before: '{}'", run.result.string()));
  } else {
    check_verifies(run, store);
    require_witness(store.path(), run);
    reference.verify_checksums();
    StatisticSum sum = count_on(reference, run.stage, trained(sets.corpus.images, request.options));
    release(run, store, reference, std::move(sum), key(), accuracy);
  }
  NoisyEvaluation out{evaluation_of(accuracy, request.options), reported(sets.corpus),
                      reference_of(accuracy), run.result, run.charged};
  const auto card = read_privacy_card(run.directory.release() / "privacy_card.json");
  warn_if_card_is_behind(run, card);
  out.evaluation.noise = statement_of(accuracy, run, card);
  return out;
}

}  // namespace sfumato
