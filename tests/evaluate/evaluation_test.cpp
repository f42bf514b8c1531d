#include "sfumato/evaluate/evaluation.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/sin.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "evaluate/evaluation_fixture.h"
#include "evaluate/feature_sets.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/data/record_store.h"
#include "sfumato/io/image_codec.h"
#include "sfumato/io/tar.h"
#include "support/error_message.h"
#include "support/every_name.h"
#include "support/shared_folder.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using test::classed_images;
using test::error_message;
using test::EvaluationTest;
using test::lineage_of;
using test::measured;
using test::Pixels;
using test::quick;
using test::write_picture;
using ::testing::AllOf;
using ::testing::HasSubstr;

TEST_F(EvaluationTest, EveryMetricHasAName) { test::expect_every_enumerator_named<Metric>(); }

TEST_F(EvaluationTest, CorpusAndStoreComeToTheSameImagesAndLabels) {
  const auto images = classed_images(40, 1);
  const ImageSets sets = open(corpus("c", images), store("s", images));
  EXPECT_EQ(sets.corpus.found, 40);
  // The store holds classes alternately, the folder one after another.
  const at::Tensor first = sets.corpus.images.images.select(0, 0);
  EXPECT_TRUE(first.equal(sets.reference.images.images.select(0, 0)));
  EXPECT_EQ(sets.corpus.images.labels.sum().item<int64_t>(), 20);
  EXPECT_EQ(sets.reference.images.labels.sum().item<int64_t>(), 20);
  EXPECT_EQ(open(folder_ / "c", folder_ / "s", 7).reference.images.count(), 7);
}

TEST_F(EvaluationTest, ASetAgainstItselfIsAtNoDistanceAndCovered) {
  const auto images = classed_images(60, 2);
  const Evaluation found = evaluate(
      open(corpus("c", images), store("s", images)), nullptr,
      quick({Metric::kFrechetDistance, Metric::kPrecisionRecall, Metric::kClassFrechetDistance}));
  EXPECT_NEAR(measured(found, "frechet_distance").value, 0, 1e-5);
  EXPECT_NEAR(measured(found, "class_frechet_distance").value, 0, 1e-5);
  EXPECT_EQ(measured(found, "precision").value, 1);
  EXPECT_EQ(measured(found, "coverage").value, 1);
  EXPECT_EQ(measured(found, "frechet_distance").title, "FD-pixels");
  EXPECT_EQ(measured(found, "frechet_distance").corpus_images, 60);
  EXPECT_NE(measured(found, "frechet_distance").preprocessing, "");
  ASSERT_EQ(found.nearest.size(), 24u);
  EXPECT_NEAR(found.nearest[0].distance, 0, 1e-3);
}

TEST_F(EvaluationTest, ClassifiersLearnTheClassesAndSeeWrongLabels) {
  const auto images = classed_images(240, 3), real = classed_images(240, 4);
  auto swapped = images;
  for (std::size_t i = 0; i + 1 < swapped.size(); i += 2) std::swap(swapped[i], swapped[i + 1]);
  const auto options = quick({Metric::kAccuracy});
  const fs::path reference = store("s", real);
  const Evaluation right = evaluate(open(corpus("c", images), reference), nullptr, options);
  EXPECT_GT(measured(right, "accuracy").value, 0.95);
  EXPECT_GT(measured(right, "real_accuracy").value, 0.95);
  EXPECT_GT(measured(right, "label_fidelity").value, 0.95);
  EXPECT_EQ(measured(right, "accuracy").reference_images, 40);
  EXPECT_GT(right.classes[1].accuracy, 0.9);
  const Evaluation wrong = evaluate(open(corpus("w", swapped), reference), nullptr, options);
  EXPECT_LT(measured(wrong, "accuracy").value, 0.05);
  EXPECT_LT(measured(wrong, "label_fidelity").value, 0.05);
  EXPECT_GT(measured(wrong, "real_accuracy").value, 0.95);
}

TEST_F(EvaluationTest, WithoutTheCeilingTheAccuracyIsTheSameAndNothingElseIsMeasured) {
  const fs::path made = corpus("c", classed_images(60, 3)),
                 real = store("s", classed_images(60, 4));
  EvaluationOptions options = quick({Metric::kAccuracy});
  const Evaluation with = evaluate(open(made, real), nullptr, options);
  options.ceiling = false;
  const Evaluation without = evaluate(open(made, real), nullptr, options);
  EXPECT_EQ(with.measurements.size(), 3u);
  ASSERT_EQ(without.measurements.size(), 1u);
  EXPECT_EQ(measured(without, "accuracy").value, measured(with, "accuracy").value);
  EXPECT_TRUE(std::isnan(without.classes[0].real_accuracy));
}

TEST_F(EvaluationTest, TrainingIsTheSameWithTheSameSeed) {
  const ImageSets sets =
      open(corpus("c", classed_images(60, 3)), store("s", classed_images(60, 4)));
  ClassifierOptions options;
  options.epochs = 1;
  const Classifier a(sets.corpus.images, options), b(sets.corpus.images, options);
  EXPECT_TRUE(
      a.predict(sets.reference.images.images).equal(b.predict(sets.reference.images.images)));
  EXPECT_EQ(a.trained_on(), 50);
}

TEST_F(EvaluationTest, OtherClassesAreRefused) {
  const fs::path two = corpus("c", classed_images(20, 1)),
                 three = corpus("d", classed_images(21, 1), 3);
  EXPECT_THAT(refusal<UsageError>(two, store("three", classed_images(21, 1), 3)),
              HasSubstr("has 2 classes"));
  EXPECT_THAT(refusal<DataError>(three, store("two", classed_images(20, 1))), HasSubstr("'2'"));
}

TEST_F(EvaluationTest, AnotherSizeOrOtherChannelsAreRefused) {
  const fs::path made = corpus("c", classed_images(20, 1));
  for (int i = 0; i < 4; ++i) {
    write_picture(folder_ / "large" / std::to_string(i % 2) / fmt::format("{}.png", i), Pixels(256),
                  16);
    write_picture(folder_ / "colour" / std::to_string(i % 2) / fmt::format("{}.png", i),
                  Pixels(192, 9), 8, 3);
  }
  EXPECT_THAT(refusal<UsageError>(made, folder_ / "large"), HasSubstr("16x16 with 1"));
  EXPECT_THAT(refusal<UsageError>(made, folder_ / "colour"), HasSubstr("8x8 with 3"));
  write_picture(folder_ / "large/0/9.png", Pixels(64));
  EXPECT_THAT(refusal<DataError>(made, folder_ / "large"), HasSubstr("images of one size"));
}

TEST_F(EvaluationTest, FoldersAreMergedWhereNoClassesAreWanted) {
  SetRequest made, real;
  made.path = corpus("c", classed_images(20, 1));
  real.path = store("s", classed_images(21, 1), 3);
  made.with_classes = real.with_classes = false;
  EXPECT_EQ(open_image_sets(made, real).corpus.images.count(), 20);
}

TEST_F(EvaluationTest, ACorpusThatLacksPicturesIsRefused) {
  const fs::path made = corpus("c", classed_images(20, 1)),
                 real = store("s", classed_images(20, 2));
  fs::remove(made / "images/1/000003.png");
  EXPECT_THAT(refusal<DataError>(made, real),
              HasSubstr("holds 19 images, and its lineage.json says 20"));
}

TEST_F(EvaluationTest, ACorpusThatLacksAShardIsRefused) {
  const auto images = classed_images(4, 1);
  fs::create_directories(folder_ / "shards");
  for (int shard = 0; shard < 2; ++shard) {
    TarWriter writer(folder_ / "shards" / fmt::format("shard-{:06}.tar", shard));
    for (int i = 0; i < 2; ++i)
      writer.add(fmt::format("{}-{:06}.png", i, shard),
                 encode_png({8, 8, 1, images[static_cast<std::size_t>(2 * shard + i)]}));
    writer.finish();
  }
  write_file_atomic(folder_ / "shards/lineage.json", lineage_of({2, 2}).dump());
  const fs::path real = store("s", classed_images(20, 2));
  EXPECT_EQ(open(folder_ / "shards", real).corpus.found, 4);
  fs::remove(folder_ / "shards/shard-000001.tar");
  EXPECT_THAT(refusal<DataError>(folder_ / "shards", real),
              HasSubstr("shards or pictures are missing"));
}

TEST_F(EvaluationTest, OneImageIsRefusedAndFewAreNamed) {
  const fs::path real = store("s", classed_images(20, 2));
  const fs::path one = corpus("one", classed_images(1, 1));
  EXPECT_THAT(refusal<DataError>(one, real), HasSubstr("holds fewer than two images"));
  const ImageSets few = open(corpus("few", classed_images(4, 1)), real);
  EXPECT_THAT(
      error_message<DataError>([&] { evaluate(few, nullptr, quick({Metric::kPrecisionRecall})); }),
      AllOf(HasSubstr("the corpus has 4 images, and at least 6 are needed on each side"),
            HasSubstr("5 nearest"), HasSubstr("raise --count, or leave precision_recall out")));
}

TEST_F(EvaluationTest, ACorpusOfOneClassIsMeasuredWithoutAccuracyAndSaysSo) {
  const auto images = classed_images(20, 1);
  const fs::path made = corpus("c", images);
  fs::remove_all(made / "images/1");
  write_file_atomic(made / "lineage.json", lineage_of({10, 0}).dump());
  const Evaluation found = evaluate(open(made, store("s", images)), nullptr,
                                    quick({Metric::kAccuracy, Metric::kClassFrechetDistance}));
  EXPECT_THAT(found.left_out,
              testing::Contains(AllOf(HasSubstr("a classifier (small) trained on synthetic"),
                                      HasSubstr("one class"))));
  EXPECT_THAT(found.left_out, testing::Contains(HasSubstr("for 1 of 2 classes")));
  EXPECT_THAT(found.warnings, testing::Contains(HasSubstr("no image of 1 of its 2 classes")));
  EXPECT_NO_THROW(measured(found, "real_accuracy"));
}

TEST_F(EvaluationTest, AStoreThatACorpusComesFromIsNeverPublic) {
  const fs::path made = corpus("c", classed_images(20, 1));
  const fs::path real = store("s", classed_images(20, 2));
  const std::string manifest = RecordStore::open(real).manifest_hash();
  EvaluationOptions options = quick({Metric::kFrechetDistance});
  options.status = ReferenceStatus::kDeclaredPublic;
  put_card(made, "void", manifest);
  EXPECT_THAT(error_message<PrivacyError>([&] { evaluate(open(made, real), nullptr, options); }),
              HasSubstr("--reference-is-public"));
  put_card(made, "not_private", manifest);  // public images, trained on without noise
  EXPECT_NO_THROW(evaluate(open(made, real), nullptr, options));
  put_card(made, "void", std::string(64, '0'));
  EXPECT_NO_THROW(evaluate(open(made, real), nullptr, options));
}

TEST_F(EvaluationTest, FamiliarNamesOfMetricsAreTakenAndFidIsInceptionsAlone) {
  using Metrics = std::vector<Metric>;
  EXPECT_EQ(metrics_of({"is", "kid", "prdc", "fd"}, {"lenet"}),
            (Metrics{Metric::kInceptionScore, Metric::kKid, Metric::kPrecisionRecall,
                     Metric::kFrechetDistance}));
  EXPECT_EQ(metrics_of({"KID", "class_frechet", "Accuracy"}, {"lenet"}),
            (Metrics{Metric::kKid, Metric::kClassFrechetDistance, Metric::kAccuracy}));
  EXPECT_EQ(metrics_of({"FID"}, {"inception"}), Metrics{Metric::kFrechetDistance});
  EXPECT_THAT(error_message<UsageError>([] {
                metrics_of({"fid"}, {"inception", "lenet"});
              }),
              HasSubstr("--metrics frechet_distance"));
  EXPECT_THAT(error_message<UsageError>([] { metrics_of({"accurcy"}, {"lenet"}); }),
              HasSubstr("did you mean 'accuracy'"));
}

TEST_F(EvaluationTest, AClassifierIsNamedOnce) {
  using Kinds = std::vector<ClassifierKind>;
  EXPECT_EQ(classifiers_of({"wrn-40-4", "small"}),
            (Kinds{ClassifierKind::kWrn404, ClassifierKind::kSmall}));
  EXPECT_THAT(error_message<UsageError>([] {
                classifiers_of({"small", "small"});
              }),
              AllOf(HasSubstr("'small' is named twice"), HasSubstr("--repeats")));
}

TEST_F(EvaluationTest, TheLogTellsTheNumberOfRealImagesWhereTheyArePublicAlone) {
  const ImageSets sets =
      open(corpus("c", classed_images(20, 1)), store("s", classed_images(41, 2)));
  for (const bool is_public : {false, true}) {
    EvaluationOptions options = quick({Metric::kAccuracy});
    if (is_public) options.status = ReferenceStatus::kDeclaredPublic;
    testing::internal::CaptureStderr();
    evaluate(sets, nullptr, options);
    EXPECT_THAT(testing::internal::GetCapturedStderr(),
                AllOf(HasSubstr("on 20 synthetic images"),
                      HasSubstr(is_public ? "on 35 real images" : "on real images")));
  }
}

TEST_F(EvaluationTest, ImagesOfFloatsAreReadAsOtherProgramsWriteThem) {
  // numpy: x float32 [N, C, H, W] in [0, 1], as an .npy beside labels.
  std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1, 8, 8), }";
  header.resize(118, ' ');
  header[117] = '\n';
  std::string bytes = std::string("\x93NUMPY\x01\x00", 8) + '\x76' + '\0' + header;
  for (int i = 0; i < 128; ++i) {
    const float value = static_cast<float>(i) / 127;
    bytes.append(reinterpret_cast<const char*>(&value), 4);
  }
  write_file_atomic(folder_ / "x.npy", bytes);
  SetRequest made, real;
  made.path = folder_ / "x.npy";
  real.path = store("s", classed_images(20, 2), 0);
  const ImageSets sets = open_image_sets(made, real);
  EXPECT_TRUE(sets.corpus.rounded);
  EXPECT_EQ(sets.corpus.images.images.flatten()[127].item<int>(), 255);
  EXPECT_EQ(sets.corpus.images.images.flatten()[10].item<int>(), 20);  // 10 / 127 * 255 = 20.08
  EXPECT_THAT(evaluate(sets, nullptr, quick({Metric::kFrechetDistance})).warnings,
              testing::Contains(HasSubstr("rounded to 8 bits")));
}

TEST_F(EvaluationTest, WeightsGoToTheOneNetworkThatTakesThem) {
  EvaluationOptions options = quick({Metric::kFrechetDistance});
  const ImageSets sets =
      open(corpus("c", classed_images(20, 1)), store("s", classed_images(20, 2)));
  options.networks = {"pixels", "lenet"};
  options.weights = test::source_folder() / "models/public/lenet";
  const Evaluation found = evaluate(sets, nullptr, options);
  ASSERT_EQ(found.measurements.size(), 2u);
  EXPECT_EQ(found.measurements[0].weights_sha256, "none");
  EXPECT_EQ(found.measurements[1].title, "FD-LeNet");
  options.networks = {"pixels", "lenet", "squeezenet"};
  EXPECT_THAT(error_message<UsageError>([&] { evaluate(sets, nullptr, options); }),
              HasSubstr("more than one network takes weights"));
}

TEST_F(EvaluationTest, WhatFewImagesDoNotAllowIsLeftOutUnlessItIsAskedFor) {
  const at::Tensor rows = at::arange(16, at::kFloat).view({4, 4}).sin();
  FeatureSet few = test::set_of(rows);
  few.logits = rows;
  EvaluationOptions options;
  const Evaluation found = evaluate_features(few, few, "test", options);
  EXPECT_NO_THROW(measured(found, "frechet_distance"));
  EXPECT_NO_THROW(measured(found, "kid_mean"));
  EXPECT_THAT(found.left_out, testing::Contains(AllOf(HasSubstr("precision, recall"),
                                                      HasSubstr("4 images, and at least 6"))));
  EXPECT_THAT(found.left_out, testing::Contains(AllOf(HasSubstr("Inception Score"),
                                                      HasSubstr("4 images, and at least 10"))));
  options.metrics = {Metric::kInceptionScore};
  EXPECT_THROW(evaluate_features(few, few, "test", options), DataError);
}

TEST_F(EvaluationTest, AnUnknownNetworkIsRefusedWithTheNamesThatThereAre) {
  EvaluationOptions options = quick({});
  options.networks = {"pixel"};
  const ImageSets sets =
      open(corpus("c", classed_images(20, 1)), store("s", classed_images(20, 2)));
  EXPECT_THAT(error_message<UsageError>([&] { evaluate(sets, nullptr, options); }),
              HasSubstr("did you mean 'pixels'"));
  options.networks = {"pixels"};
  options.weights = "weights.pth";
  EXPECT_THAT(error_message<UsageError>([&] { evaluate(sets, nullptr, options); }),
              HasSubstr("take no weights file"));
}

}  // namespace
}  // namespace sfumato
