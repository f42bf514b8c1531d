// The choice among candidates by released means: against brute force with an inverse covariance;
// what it takes where few are left; what it is worth where the right answer is known.
#include "sfumato/corpus/candidate_choice.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/full.h>
#include <ATen/ops/inverse.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "sfumato/core/error.h"

namespace sfumato {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

constexpr int64_t kSide = 4, kValues = kSide * kSide;
constexpr double kRidge = 0.3;  // as documented

std::unique_ptr<FeatureNetwork> pixels() {
  return make_feature_network("pixels", {.shape = {1, kSide, kSide}, .weights = {}});
}

FeatureMeans means_of(const at::Tensor& means) {
  FeatureMeans found;
  found.means = means;
  found.features = "pixels";
  found.features_weights = "none";
  return found;
}

/// Images around a mean of their class: uint8 [n, 4, 4, 1].
at::Tensor candidates(std::span<const int64_t> labels, int64_t classes, unsigned seed,
                      at::Tensor* truth) {
  std::mt19937 draw(seed);
  std::uniform_real_distribution<double> value(0, 60), noise(-40, 40);
  at::Tensor centres = at::empty({classes, kValues}, at::kDouble);
  for (int64_t c = 0; c < classes; ++c)
    for (int64_t p = 0; p < kValues; ++p) centres[c][p] = 40 + value(draw);
  const int64_t count = std::ssize(labels);
  at::Tensor images = at::empty({count, kSide, kSide, 1}, at::kByte);
  auto* out = images.mutable_data_ptr<uint8_t>();
  for (const int64_t label : labels) {
    const double shared = noise(draw);  // pixels of an image vary together
    for (int64_t p = 0; p < kValues; ++p)
      *out++ = static_cast<uint8_t>(
          std::clamp(centres[label][p].item<double>() + shared + noise(draw), 0.0, 255.0));
  }
  *truth = features_within_unit_norm(centres / 255);
  return images;
}

at::Tensor rows_of(const at::Tensor& images) {
  const at::Tensor rows = images.to(at::kDouble).flatten(1) / 255;
  std::vector<at::Tensor> scaled;
  for (int64_t i = 0; i < rows.size(0); ++i)
    scaled.push_back(rows[i] / std::max(1.0, rows[i].norm().item<double>()));
  return at::stack(scaled);
}

/// The same rule by distances under an inverse covariance, every sum anew for every candidate.
class BruteForce {
 public:
  BruteForce(const at::Tensor& images, std::span<const int64_t> labels, const at::Tensor& means)
      : rows_(rows_of(images)), labels_(labels.begin(), labels.end()), means_(means) {
    at::Tensor scatter = at::zeros({kValues, kValues}, at::kDouble);
    for (int64_t c = 0; c < means.size(0); ++c) {
      at::Tensor mean = at::zeros({kValues}, at::kDouble);
      const std::vector<int64_t> own = of_class(c);
      for (const int64_t i : own) mean += rows_[i] / static_cast<double>(own.size());
      for (const int64_t i : own) scatter += (rows_[i] - mean).outer(rows_[i] - mean);
    }
    scatter /= static_cast<double>(rows_.size(0));
    inverse_ = at::inverse(scatter + at::eye(kValues, at::kDouble) *
                                         (kRidge * scatter.trace().item<double>() / kValues));
  }
  std::vector<int64_t> choose(int64_t label, int64_t wanted) const {
    std::vector<std::pair<double, int64_t>> by_margin;
    for (const int64_t i : of_class(label)) by_margin.emplace_back(-margin(i, label), i);
    std::ranges::sort(by_margin);
    std::vector<int64_t> may;
    for (const auto& [negative, i] : by_margin)
      if (negative < 0 || std::ssize(may) < wanted) may.push_back(i);
    std::ranges::sort(may);
    std::vector<int64_t> taken;
    at::Tensor sum = at::zeros({kValues}, at::kDouble);
    while (std::ssize(taken) < wanted) {
      std::pair<double, int64_t> best{1e300, -1};
      for (const int64_t i : may) {
        if (std::ranges::find(taken, i) != taken.end()) continue;
        const at::Tensor mean = (sum + rows_[i]) / static_cast<double>(taken.size() + 1);
        best = std::min(best, {distance(mean, means_[label]), i});
      }
      taken.push_back(best.second);
      sum += rows_[best.second];
    }
    return taken;
  }
  double margin(int64_t row, int64_t label) const {
    double other = 1e300;
    for (int64_t c = 0; c < means_.size(0); ++c)
      if (c != label) other = std::min(other, distance(rows_[row], means_[c]));
    return other - distance(rows_[row], means_[label]);
  }

 private:
  std::vector<int64_t> of_class(int64_t label) const {
    std::vector<int64_t> found;
    for (size_t i = 0; i < labels_.size(); ++i)
      if (labels_[i] == label) found.push_back(static_cast<int64_t>(i));
    return found;
  }
  double distance(const at::Tensor& a, const at::Tensor& b) const {
    return (a - b).dot(inverse_.mv(a - b)).item<double>();
  }
  at::Tensor rows_;
  std::vector<int64_t> labels_;
  at::Tensor means_, inverse_;
};

std::vector<int64_t> labels_in_turn(int64_t count, int64_t classes) {
  std::vector<int64_t> labels;
  for (int64_t i = 0; i < count; ++i) labels.push_back(i / 4 % classes);
  return labels;
}

TEST(CandidateChoice, IsThatOfBruteForce) {
  for (const int64_t classes : {1, 2, 5}) {
    const std::vector<int64_t> labels = labels_in_turn(24 * classes, classes);
    at::Tensor truth;
    const at::Tensor images = candidates(labels, classes, 11, &truth);
    const CandidateChoice choice(means_of(truth), pixels());
    const BruteForce brute(images, labels, truth);
    for (const int64_t of : {2, 4, 12}) {
      const auto found = choice.choose(images, labels, of);
      ASSERT_THAT(found, SizeIs(classes));
      for (int64_t c = 0; c < classes; ++c)
        EXPECT_EQ(found[static_cast<size_t>(c)], brute.choose(c, 24 / of)) << classes << " " << of;
    }
  }
}

TEST(CandidateChoice, WhatLooksLikeAnotherClassIsLeftOut) {
  std::vector<int64_t> labels = labels_in_turn(48, 2);
  at::Tensor truth;
  const at::Tensor images = candidates(labels, 2, 3, &truth);
  // Class 0 gets eight images that were drawn as class 1, and says so of them.
  std::vector<int64_t> strangers;
  for (int64_t i = 0; i < 48 && strangers.size() < 8; ++i)
    if (labels[static_cast<size_t>(i)] == 1) strangers.push_back(i);
  for (const int64_t i : strangers) labels[static_cast<size_t>(i)] = 0;
  const auto chosen = CandidateChoice(means_of(truth), pixels()).choose(images, labels, 4);
  ASSERT_THAT(chosen[0], SizeIs(8));
  const BruteForce brute(images, labels, truth);
  for (const int64_t i : chosen[0]) EXPECT_GT(brute.margin(i, 0), 0) << i;
  int found = 0;
  for (const int64_t i : strangers) found += brute.margin(i, 0) <= 0;
  EXPECT_GE(found, 6) << "else there was little to leave out";
}

TEST(CandidateChoice, WhereAllLookLikeAnotherClassTheLeastWrongStay) {
  const std::vector<int64_t> labels = labels_in_turn(16, 2);
  at::Tensor truth;
  const at::Tensor images = candidates(labels, 2, 5, &truth);
  at::Tensor swapped = truth.flip(0);
  const auto chosen = CandidateChoice(means_of(swapped), pixels()).choose(images, labels, 4);
  const BruteForce brute(images, labels, swapped);
  for (int64_t c = 0; c < 2; ++c) EXPECT_EQ(chosen[static_cast<size_t>(c)], brute.choose(c, 2));
}

TEST(CandidateChoice, MeansOfTheChosenComeNearerThanThoseOfAll) {
  const std::vector<int64_t> labels = labels_in_turn(400, 2);
  at::Tensor truth;
  const at::Tensor images = candidates(labels, 2, 7, &truth);
  const auto chosen = CandidateChoice(means_of(truth), pixels()).choose(images, labels, 4);
  const at::Tensor rows = rows_of(images);
  for (int64_t c = 0; c < 2; ++c) {
    at::Tensor all = at::zeros({kValues}, at::kDouble), few = at::zeros({kValues}, at::kDouble);
    for (size_t i = 0; i < labels.size(); ++i)
      if (labels[i] == c) all += rows[static_cast<int64_t>(i)] / 200;
    ASSERT_THAT(chosen[static_cast<size_t>(c)], SizeIs(50));
    for (const int64_t i : chosen[static_cast<size_t>(c)]) few += rows[i] / 50;
    EXPECT_LT((few - truth[c]).norm().item<double>(), (all - truth[c]).norm().item<double>());
  }
}

/// Class 1 if that pixel is above `threshold`, else class 0.
FeatureClassifier by_one_pixel(int64_t pixel, double threshold) {
  FeatureClassifier found;
  found.weights = at::zeros({2, kValues}, at::kDouble);
  found.weights[1][pixel] = 2;
  found.biases = at::zeros({2}, at::kDouble);
  found.biases[1] = -2 * threshold;
  found.features = "pixels";
  found.features_weights = "none";
  return found;
}

TEST(CandidateChoice, AReleasedClassifierSaysWhatIsLeftOut) {
  const std::vector<int64_t> labels = labels_in_turn(96, 2);
  at::Tensor truth;
  const at::Tensor images = candidates(labels, 2, 13, &truth);
  // The pixel that is the lightest in class 1, compared with class 0.
  const int64_t pixel = (truth[1] - truth[0]).argmax().item<int64_t>();
  const at::Tensor values = rows_of(images).select(1, pixel);
  const double threshold = values.median().item<double>();
  const auto chosen = CandidateChoice(means_of(truth), pixels(), by_one_pixel(pixel, threshold))
                          .choose(images, labels, 8);
  const BruteForce brute(images, labels, truth);
  for (int64_t c = 0; c < 2; ++c) {
    ASSERT_THAT(chosen[static_cast<size_t>(c)], SizeIs(6));
    for (const int64_t i : chosen[static_cast<size_t>(c)])
      EXPECT_EQ(values[i].item<double>() > threshold, c == 1) << i;
    EXPECT_NE(chosen[static_cast<size_t>(c)], brute.choose(c, 6)) << "else the means decided";
  }
}

// Identical candidates have no scatter at all.
TEST(CandidateChoice, TakesTheEarlierOfEqualOnes) {
  const at::Tensor images = at::full({6, kSide, kSide, 1}, 100, at::kByte);
  const std::vector<int64_t> labels(6, 0);
  const at::Tensor means = at::full({1, kValues}, 0.2, at::kDouble);
  const auto chosen = CandidateChoice(means_of(means), pixels()).choose(images, labels, 3);
  EXPECT_THAT(chosen, ElementsAre(ElementsAre(0, 1)));
}

TEST(CandidateChoice, RefusesMeansOfOtherFeatures) {
  const at::Tensor means = at::full({2, kValues}, 0.2, at::kDouble);
  FeatureMeans other = means_of(means);
  other.features = "scattering";
  EXPECT_THROW(CandidateChoice(other, pixels()), UsageError);
  other = means_of(means);
  other.features_weights = "ab12";
  EXPECT_THROW(CandidateChoice(other, pixels()), UsageError);
  EXPECT_THROW(CandidateChoice(means_of(at::full({2, 17}, 0.2, at::kDouble)), pixels()),
               UsageError);
  const FeatureClassifier good = by_one_pixel(0, 0.5);
  EXPECT_NO_THROW(CandidateChoice(means_of(means), pixels(), good));
  FeatureClassifier stranger = good;
  stranger.features = "scattering";
  EXPECT_THROW(CandidateChoice(means_of(means), pixels(), stranger), UsageError);
  stranger = good;
  stranger.weights = at::zeros({2, 17}, at::kDouble);
  EXPECT_THROW(CandidateChoice(means_of(means), pixels(), stranger), UsageError);
  stranger = good;
  stranger.weights = at::zeros({3, kValues}, at::kDouble);
  EXPECT_THROW(CandidateChoice(means_of(means), pixels(), stranger), UsageError);
}

}  // namespace
}  // namespace sfumato
