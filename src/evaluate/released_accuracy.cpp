// The stage accuracy: right answers of classifiers that were trained on the corpus alone.
#include <ATen/ops/from_blob.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "evaluate/classifier_scores.h"
#include "evaluate/stage_release.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/evaluate/classifier.h"
#include "sfumato/mechanism/accuracy.h"

namespace sfumato {
namespace {

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

class AccuracyRelease : public StageRelease {
 public:
  AccuracyRelease(const ReleaseInput& input, const EvaluatedStage& stage)
      : StageRelease(input, stage) {
    const EvaluationOptions& options = input.request.options;
    if (options.repeats < 1) throw UsageError("--repeats takes 1 or more");
    if (input.sets.corpus.images.num_classes() < 2)
      throw UsageError(
          "accuracy needs a corpus and real images with two classes or more in common");
    (void)count_right_answers(stage.plan, 0, std::ssize(options.classifiers), {});
    static_cast<NoisyRelease&>(accuracy_) = asked(input.run.config->accuracy.expected_records);
    accuracy_.repeats = options.repeats;
    accuracy_.seed = options.seed;
    for (const ClassifierKind kind : options.classifiers) {
      ClassifierOptions one = options.classifier;
      one.kind = kind;
      one.seed = options.seed;
      accuracy_.classifiers.push_back(
          {to_string(kind), classifier_detail(one, options.repeats), 0});
    }
  }

  StatisticSum sum() override {
    return count_on(input_.reference, stage_.plan,
                    trained(input_.sets.corpus.images, input_.request.options));
  }

  nlohmann::ordered_json take(const std::vector<double>& noisy) override {
    for (std::size_t i = 0; i < noisy.size(); ++i)
      accuracy_.classifiers[i].noisy_right_answers = noisy[i];
    return to_json(accuracy_);
  }

  void take_earlier() override {
    check_result_is_there(input_.run, stage_);
    NoisyAccuracy made = read_noisy_accuracy(stage_.result);
    NoisyAccuracy asked = accuracy_;
    asked.expected_records = made.expected_records;
    for (std::size_t i = 0; i < std::min(asked.classifiers.size(), made.classifiers.size()); ++i)
      asked.classifiers[i].noisy_right_answers = made.classifiers[i].noisy_right_answers;
    std::vector<std::string> names;
    for (const NoisyAnswers& one : made.classifiers) names.push_back(one.classifier);
    if (asked != made)
      refuse_another(made, fmt::format("by {} trained {} times from seed {}",
                                       fmt::join(names, ", "), made.repeats, made.seed));
    accuracy_ = std::move(made);
  }

  void report(Evaluation& out) const override {
    for (std::size_t i = 0; i < accuracy_.classifiers.size(); ++i) {
      Measurement one = classifier_measurement(
          "accuracy", "accuracy on real images, trained on the corpus, noisy",
          input_.request.options.classifiers[i]);
      describe(one);
      one.value = accuracy_.accuracy(accuracy_.classifiers[i]);
      one.std = accuracy_.noise_stddev / accuracy_.expected_records;
      one.detail = accuracy_.classifiers[i].detail +
                   "; ± is the noise's; N of the reference is the public divisor";
      out.measurements.push_back(std::move(one));
    }
  }

  NoisyStage statement() const override {
    const NoisyAccuracy& made = accuracy_;
    return {stage_.plan.name, made.noise_stddev, made.expected_records,
            fmt::format("how many private {} the classifiers, trained on the corpus alone, "
                        "recognised, plus Gaussian noise of standard deviation {:.4g}, divided by "
                        "{:.6g}, a public number that stands for theirs. The noise alone gives an "
                        "accuracy a standard deviation of {:.2g}",
                        made.tested_on, made.noise_stddev, made.expected_records,
                        made.noise_stddev / made.expected_records)};
  }

  const NoisyRelease& facts() const override { return accuracy_; }

 private:
  NoisyAccuracy accuracy_;
};

}  // namespace

std::unique_ptr<StageRelease> accuracy_release(const ReleaseInput& input,
                                               const EvaluatedStage& stage) {
  return std::make_unique<AccuracyRelease>(input, stage);
}

}  // namespace sfumato
