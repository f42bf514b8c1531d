#include "evaluate/classifier_scores.h"

#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/evaluate/numpy_random.h"

namespace sfumato {
namespace {

constexpr int64_t kTestPart =
    6;  // one of so many reference images tests, where no test set is given

/// Accuracies of repeated training, by one of several sets.
struct Repeated {
  std::vector<double> values;
  std::vector<double> per_class;  ///< means
  int64_t images = 0;

  void add(const Accuracy& one, int64_t repeats) {
    values.push_back(one.value);
    images = one.images;
    per_class.resize(one.per_class.size(), 0);
    for (std::size_t label = 0; label < per_class.size(); ++label)
      per_class[label] += one.per_class[label] / static_cast<double>(repeats);
  }
  double mean() const {
    double sum = 0;
    for (const double value : values) sum += value;
    return sum / static_cast<double>(values.size());
  }
  /// Of the sample; NaN for one value.
  double std() const {
    if (values.size() < 2) return NAN;
    double square = 0;
    for (const double value : values) square += (value - mean()) * (value - mean());
    return std::sqrt(square / static_cast<double>(values.size() - 1));
  }
};

LabelledImages part_of(const LabelledImages& all, const std::vector<int64_t>& rows) {
  const at::Tensor chosen = at::tensor(rows, at::kLong);
  return {all.images.index_select(0, chosen), all.labels.index_select(0, chosen), all.class_names};
}

/// Real images to train on and, apart from them, to test on.
struct RealParts {
  LabelledImages train, test;
  std::string split;
};

RealParts real_parts(const ImageSets& sets, const ImageSet* test, uint64_t seed) {
  const LabelledImages& all = sets.reference.images;
  if (test != nullptr) return {all, test->images, test->split};
  std::vector<int64_t> order = NumpyRandom(static_cast<uint32_t>(seed)).permutation(all.count());
  const auto cut = static_cast<std::ptrdiff_t>(std::max<int64_t>(all.count() / kTestPart, 1));
  const std::vector<int64_t> apart(order.begin(), order.begin() + cut);
  order.erase(order.begin(), order.begin() + cut);
  return {part_of(all, order), part_of(all, apart), sets.reference.split + ", a sixth set apart"};
}

void add_measurement(const std::string& key, const std::string& title, const Repeated& found,
                     const std::string& detail, int64_t corpus_images, int64_t reference_images,
                     const std::string& split, ClassifierKind kind, Evaluation& out) {
  Measurement one = classifier_measurement(key, title, kind);
  one.value = found.mean();
  one.std = found.std();
  one.corpus_images = corpus_images;
  one.reference_images = reference_images;
  one.split = split;
  one.detail = detail;
  out.measurements.push_back(std::move(one));
}

}  // namespace

Measurement classifier_measurement(const std::string& key, const std::string& title,
                                   ClassifierKind kind) {
  Measurement one;
  one.key = key;
  one.title = title;
  one.network = to_string(kind) + " classifier, trained here";
  one.preprocessing = "uint8 / 127.5 - 1, sides above 32 averaged down";
  one.weights_sha256 = "none (trained for this number)";
  return one;
}

std::string classifier_detail(const ClassifierOptions& options, int64_t repeats) {
  return fmt::format("{}; {}", classifier_description(options),
                     repeats == 1
                         ? "one training, so its spread is not known"
                         : fmt::format("mean of {} trainings, seeds one after another", repeats));
}

void add_classifier_scores(const ImageSets& sets, const ImageSet* test,
                           const EvaluationOptions& options, ClassifierKind kind, Evaluation& out) {
  if (options.repeats < 1) throw UsageError("--repeats takes 1 or more");
  const LabelledImages& corpus = sets.corpus.images;
  const RealParts real = real_parts(sets, test, options.seed);
  Repeated synthetic, ceiling, fidelity;
  const auto repeat = [&](const char* what, const LabelledImages& train, const auto& note) {
    try {
      for (int64_t i = 0; i < options.repeats; ++i) {
        ClassifierOptions one = options.classifier;
        one.kind = kind;
        one.seed = options.seed + static_cast<uint64_t>(i);
        // Of a private set the number of images is as private as they are, and logs are kept.
        const bool may_count = &train == &corpus || options.status != ReferenceStatus::kPrivate;
        log_info(fmt::format("training a classifier ({}) on {}{} images", to_string(kind),
                             may_count ? std::to_string(train.count()) + " " : "", what));
        note(Classifier(train, one));
      }
      return true;
    } catch (const DataError& error) {
      out.left_out.push_back(fmt::format("accuracy of a classifier ({}) trained on {} images: {}",
                                         to_string(kind), what, error.what()));
      return false;
    }
  };
  ClassifierOptions described = options.classifier;
  described.kind = kind;
  const std::string detail = classifier_detail(described, options.repeats);
  // Classes have one number each: of the network that is named first.
  const bool first = options.classifiers.empty() || options.classifiers.front() == kind;
  if (first) out.class_classifier = to_string(kind);
  if (repeat("synthetic", corpus, [&](const Classifier& classifier) {
        synthetic.add(classifier.accuracy(real.test), options.repeats);
      })) {
    add_measurement("accuracy", "accuracy on real images, trained on the corpus", synthetic, detail,
                    corpus.count(), real.test.count(), real.split, kind, out);
    for (std::size_t i = 0; first && i < out.classes.size(); ++i)
      out.classes[i].accuracy = synthetic.per_class[i];
  }
  if (!options.ceiling) return;
  if (!repeat("real", real.train, [&](const Classifier& classifier) {
        ceiling.add(classifier.accuracy(real.test), options.repeats);
        fidelity.add(classifier.accuracy(corpus), options.repeats);
      }))
    return;
  add_measurement("real_accuracy", "accuracy on real images, trained on real ones (ceiling)",
                  ceiling, fmt::format("trained on {} real images; {}", real.train.count(), detail),
                  0, real.test.count(), real.split, kind, out);
  add_measurement("label_fidelity",
                  "label fidelity: accuracy on the corpus, trained on real images", fidelity,
                  detail, corpus.count(), real.train.count(), sets.reference.split, kind, out);
  for (std::size_t i = 0; first && i < out.classes.size(); ++i) {
    out.classes[i].real_accuracy = ceiling.per_class[i];
    out.classes[i].label_fidelity = fidelity.per_class[i];
  }
}

}  // namespace sfumato
