#include "sfumato/evaluate/evaluation.h"

#include <ATen/ops/bincount.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "evaluate/classifier_scores.h"
#include "sfumato/core/error.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/evaluate/frechet_distance.h"
#include "sfumato/evaluate/kernel_distance.h"

namespace sfumato {
namespace {

constexpr std::size_t kKeptPairs = 24;

bool asked(const EvaluationOptions& options, Metric metric) {
  return options.metrics.empty() ||
         std::ranges::find(options.metrics, metric) != options.metrics.end();
}

/// The numbers that a network's features give.
class FeatureScores {
 public:
  FeatureScores(const FeatureSet& corpus, const FeatureSet& reference, std::string split,
                const EvaluationOptions& options, Evaluation& out)
      : corpus_(corpus),
        reference_(reference),
        split_(std::move(split)),
        options_(options),
        out_(out) {}

  void measure() {
    if (asked(options_, Metric::kFrechetDistance)) {
      if (stop_requested()) throw Interrupted("stopped; nothing was written");
      const double distance = frechet_distance(frechet_statistics(corpus_, "the corpus"),
                                               frechet_statistics(reference_, "the reference"));
      Measurement& one = add("frechet_distance", corpus_.facts.distance, distance, true);
      if (std::min(corpus_.count(), reference_.count()) <= corpus_.dimension())
        one.detail = "fewer images than dimensions: biased upwards, compare at equal N alone";
    }
    if (asked(options_, Metric::kKid)) kernel();
    if (asked(options_, Metric::kInceptionScore)) inception();
    if (asked(options_, Metric::kPrecisionRecall)) manifold();
  }

  void measure_classes(const LabelledImages& corpus, const LabelledImages& reference) {
    if (!asked(options_, Metric::kClassFrechetDistance)) return;
    const auto found = class_frechet_distances(corpus_, corpus.labels, reference_, reference.labels,
                                               corpus.num_classes());
    double sum = 0;
    int64_t measured = 0, thin = 0;
    for (const ClassDistance& one : found)
      if (!std::isnan(one.distance))
        sum += one.distance, ++measured, thin += one.fewer_than_dimensions;
    if (measured < std::ssize(found))
      out_.left_out.push_back(
          fmt::format("{} by class for {} of {} classes: fewer than two images on a side",
                      corpus_.facts.distance, std::ssize(found) - measured, found.size()));
    Measurement& mean = add("class_frechet_distance", corpus_.facts.distance + " by class, mean",
                            measured > 0 ? sum / static_cast<double>(measured) : NAN, true);
    mean.detail = fmt::format("{} of {} classes", measured, found.size());
    if (thin > 0)
      mean.detail += fmt::format(
          "; {} with fewer images than dimensions: biased upwards, compare at equal N alone", thin);
    if (!first()) return;
    for (std::size_t label = 0; label < found.size(); ++label) {
      out_.classes[label].frechet_distance = found[label].distance;
      out_.classes[label].fewer_than_dimensions = found[label].fewer_than_dimensions;
    }
  }

 private:
  bool first() const {
    return options_.networks.empty() || corpus_.facts.network == options_.networks.front();
  }

  /// Whether a metric is left out, as there are too few images. DataError where it was asked for.
  bool too_few(const char* title, Metric metric, int64_t least, const std::string& why,
               bool of_both = true) {
    const bool thin_corpus = corpus_.count() < least;
    if (!thin_corpus && (!of_both || reference_.count() >= least)) return false;
    std::string said =
        fmt::format("{} by '{}': the {} has {} images, and at least {} are needed{}, {}", title,
                    corpus_.facts.network, thin_corpus ? "corpus" : "reference",
                    thin_corpus ? corpus_.count() : reference_.count(), least,
                    of_both ? " on each side" : "", why);
    if (!options_.metrics.empty())
      throw DataError(
          fmt::format("{}; give more images, raise --count, or leave {} out of --metrics", said,
                      to_string(metric)));
    out_.left_out.push_back(std::move(said));
    return true;
  }

  Measurement& add(std::string key, std::string title, double value, bool smaller_is_better) {
    Measurement one;
    one.key = std::move(key);
    one.title = std::move(title);
    one.value = value;
    one.smaller_is_better = smaller_is_better;
    one.corpus_images = corpus_.count();
    one.reference_images = reference_.count();
    one.split = split_;
    one.network = corpus_.facts.network;
    one.preprocessing = corpus_.facts.preprocessing;
    one.weights_sha256 = corpus_.facts.weights_sha256;
    return out_.measurements.emplace_back(std::move(one));
  }

  void kernel() {
    const KernelDistance found = kernel_distance(corpus_, reference_);
    const std::string detail =
        fmt::format("cubic kernel, unbiased, {} subsets of {}", found.subsets, found.subset_size);
    Measurement& mean = add("kid_mean", "kernel distance", found.mean, true);
    mean.std = found.std;
    mean.detail = detail;
    Measurement& std = add("kid_std", "kernel distance, spread of subsets", found.std, true);
    std.detail = detail;
  }

  void inception() {
    if (!corpus_.logits.defined()) {
      out_.left_out.push_back(fmt::format("Inception Score by '{}': it gives no logits of classes",
                                          corpus_.facts.network));
      return;
    }
    if (too_few("Inception Score", Metric::kInceptionScore, kInceptionSplits,
                "one for each of its splits", /*of_both=*/false))
      return;
    const InceptionScore found = inception_score(corpus_);
    Measurement& one = add("inception_score_mean", "Inception Score", found.mean, false);
    one.std = found.std;
    one.reference_images = 0;
    one.detail = fmt::format("{} splits, of the corpus alone", found.splits);
  }

  void manifold() {
    const ManifoldOptions neighbours;
    const int64_t most = std::max(neighbours.precision_k, neighbours.density_k);
    if (too_few("precision, recall, density and coverage", Metric::kPrecisionRecall, most + 1,
                fmt::format("as their balls reach to the {} nearest other images", most)))
      return;
    const ManifoldScores found = manifold_scores(corpus_, reference_, neighbours);
    const auto put = [&](const char* key, const char* title, double value, int64_t k,
                         const char* what) {
      add(key, title, value, false).detail = fmt::format("k = {}, {}", k, what);
    };
    put("precision", "precision", found.precision, found.precision_k,
        "share of corpus images in balls of the reference");
    put("recall", "recall", found.recall, found.precision_k,
        "share of reference images in balls of the corpus");
    put("density", "density", found.density, found.density_k,
        "balls of the reference around a corpus image, over k");
    put("coverage", "coverage", found.coverage, found.density_k,
        "share of reference images whose ball holds a corpus image");
    if (!first()) return;
    std::vector<std::size_t> order(found.nearest.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    const std::size_t kept = std::min(kKeptPairs, order.size());
    std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(kept), order.end(),
                      [&](std::size_t a, std::size_t b) {
                        return std::pair(found.nearest_distance[a], a) <
                               std::pair(found.nearest_distance[b], b);
                      });
    for (std::size_t i = 0; i < kept; ++i)
      out_.nearest.push_back({static_cast<int64_t>(order[i]), found.nearest[order[i]],
                              found.nearest_distance[order[i]]});
  }

  const FeatureSet& corpus_;
  const FeatureSet& reference_;
  std::string split_;
  const EvaluationOptions& options_;
  Evaluation& out_;
};

FeatureSet features_by(const FeatureNetwork& network, const LabelledImages& images) {
  const FeatureBatch batch = features_of(network, images.images);
  return {network.facts(), batch.features, batch.logits};
}

bool takes_weights(const std::string& network) {
  return std::ranges::any_of(feature_networks(), [&](const FeatureNetworkRow& row) {
    return row.name == network && row.takes_weights_file;
  });
}

/// The file that the user names is that of the one network which takes any. UsageError where
/// several do; where none does, the first of them refuses it.
std::filesystem::path weights_of(const std::string& network, const EvaluationOptions& options) {
  const auto takers = std::ranges::count_if(options.networks, takes_weights);
  if (!options.weights.empty() && takers > 1)
    throw UsageError(fmt::format(
        "of the features {} more than one network takes weights, and --weights '{}' is one file; "
        "name one of them at a time",
        fmt::join(options.networks, ", "), options.weights.string()));
  return takers == 0 || takes_weights(network) ? options.weights : std::filesystem::path();
}

void count_classes(const ImageSets& sets, Evaluation& out) {
  const LabelledImages &a = sets.corpus.images, &b = sets.reference.images;
  const at::Tensor of_a = at::bincount(a.labels, {}, a.num_classes());
  const at::Tensor of_b = at::bincount(b.labels, {}, b.num_classes());
  for (int64_t label = 0; label < a.num_classes(); ++label) {
    ClassRow row;
    row.name = a.class_names[static_cast<std::size_t>(label)];
    row.corpus_images = of_a[label].item<int64_t>();
    row.reference_images = of_b[label].item<int64_t>();
    out.classes.push_back(std::move(row));
  }
  const auto empty = std::ranges::count_if(
      out.classes, [](const ClassRow& row) { return row.corpus_images == 0; });
  if (empty > 0)
    out.warnings.push_back(
        fmt::format("the corpus has no image of {} of its {} classes", empty, out.classes.size()));
}

void note_sets(const ImageSets& sets, Evaluation& out) {
  if (sets.corpus.rounded || sets.reference.rounded)
    out.warnings.emplace_back("images of floats were rounded to 8 bits");
  if (sets.corpus.identity == sets.reference.identity)
    out.warnings.emplace_back("the corpus and the reference are the same images");
}

/// Exact numbers are not to be called noisy.
void check_status(const EvaluationOptions& options) {
  if (options.status == ReferenceStatus::kReleasedWithNoise)
    throw PrivacyError("these numbers are exact; noise is evaluate_with_noise's to draw");
}

}  // namespace

Evaluation evaluate(const ImageSets& sets, const ImageSet* test, const EvaluationOptions& options) {
  if (options.networks.empty()) throw UsageError("name at least one of --features");
  check_status(options);
  Evaluation out;
  out.status = options.status;
  if (options.status == ReferenceStatus::kDeclaredPublic) {
    require_may_be_public(sets.corpus, sets.reference);
    require_may_be_public(sets.corpus, sets.corpus);  // of a store the same holds on this side
    if (test != nullptr) require_may_be_public(sets.corpus, *test);
  }
  note_sets(sets, out);
  const bool with_classes = sets.corpus.images.num_classes() > 1;
  if (with_classes)
    count_classes(sets, out);
  else
    out.left_out.emplace_back(
        "everything by class, and accuracy: the sets have no classes in common, or one alone");
  for (const std::string& name : options.networks) {
    const auto network =
        make_feature_network(name, {sets.corpus.images.shape(), weights_of(name, options),
                                    &sets.reference.images, options.seed});
    const FeatureSet corpus = features_by(*network, sets.corpus.images);
    const FeatureSet reference = features_by(*network, sets.reference.images);
    FeatureScores scores(corpus, reference, sets.reference.split, options, out);
    scores.measure();
    if (with_classes) scores.measure_classes(sets.corpus.images, sets.reference.images);
  }
  if (with_classes && asked(options, Metric::kAccuracy))
    for (const ClassifierKind kind : options.classifiers)
      add_classifier_scores(sets, test, options, kind, out);
  return out;
}

Evaluation evaluate_features(const FeatureSet& corpus, const FeatureSet& reference,
                             const std::string& split, const EvaluationOptions& options) {
  check_status(options);
  require_alike(corpus.facts, reference.facts);
  Evaluation out;
  out.status = options.status;
  out.left_out.emplace_back("everything by class, and accuracy: features come without images");
  FeatureScores(corpus, reference, split, options, out).measure();
  return out;
}

}  // namespace sfumato
