#include "sfumato/evaluate/evaluation.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/sin.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "audit/small_images.h"
#include "evaluate/feature_sets.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/data/record_store.h"
#include "sfumato/evaluate/evaluation_report.h"
#include "sfumato/io/image_codec.h"
#include "sfumato/io/tar.h"
#include "sfumato/report/privacy_card.h"
#include "support/error_message.h"
#include "support/every_name.h"
#include "support/shared_folder.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using test::error_message;
using test::Pixels;
using ::testing::AllOf;
using ::testing::HasSubstr;

/// Grey images of 8 x 8 pixels whose class is where they are light.
std::vector<Pixels> classed_images(int count, unsigned seed, int classes = 2) {
  std::vector<Pixels> images = test::random_images(count, seed);
  for (std::size_t i = 0; i < images.size(); ++i)
    for (std::size_t at = 0; at < 64; ++at) {
      const bool light = static_cast<int>(at / 32) == static_cast<int>(i) % classes;
      images[i][at] = static_cast<std::uint8_t>(images[i][at] / 4 + (light ? 150 : 20));
    }
  return images;
}

void write_picture(const fs::path& file, const Pixels& pixels, int side = 8, int channels = 1) {
  fs::create_directories(file.parent_path());
  write_file_atomic(file, encode_png({side, side, channels, pixels}));
}

Json lineage_of(const std::vector<int64_t>& per_class) {
  Json classes = Json::array();
  for (std::size_t c = 0; c < per_class.size(); ++c)
    classes.push_back({{"label", c},
                       {"name", std::to_string(c)},
                       {"images", per_class[c]},
                       {"folder", "images/" + std::to_string(c)}});
  return {
      {"made_by", {{"name", "sfumato"}}}, {"images_per_class", per_class}, {"classes", classes}};
}

class EvaluationTest : public testing::Test {
 protected:
  /// A corpus of ours; label i % classes.
  fs::path corpus(const std::string& name, const std::vector<Pixels>& images, int classes = 2) {
    std::vector<int64_t> counts(static_cast<std::size_t>(classes));
    for (std::size_t i = 0; i < images.size(); ++i) {
      const std::size_t label = i % static_cast<std::size_t>(classes);
      write_picture(folder_ / name / "images" / std::to_string(label) / fmt::format("{:06}.png", i),
                    images[i]);
      ++counts[label];
    }
    write_file_atomic(folder_ / name / "lineage.json", lineage_of(counts).dump());
    return folder_ / name;
  }
  fs::path store(const std::string& name, const std::vector<Pixels>& images, int classes = 2) {
    test::write_store(folder_ / name, images, 8, classes);
    return folder_ / name;
  }
  static ImageSets open(const fs::path& a, const fs::path& b, int64_t count = 0) {
    SetRequest corpus, reference;
    corpus.path = a, reference.path = b;
    corpus.count = reference.count = count;
    return open_image_sets(corpus, reference);
  }
  template <class E>
  static std::string refusal(const fs::path& a, const fs::path& b) {
    return error_message<E>([&] { open(a, b); });
  }
  void put_card(const fs::path& corpus, const std::string& status, const std::string& manifest) {
    Json card = void_card("made for a test");
    card["status"] = status;
    card["data_manifest_hash"] = manifest;
    write_file_atomic(corpus / "privacy_card.json", card.dump());
  }

  test::TempFolder folder_;
};

EvaluationOptions quick(std::vector<Metric> metrics) {
  EvaluationOptions options;
  options.networks = {"pixels"};
  options.metrics = std::move(metrics);
  options.classifier.epochs = 3;
  return options;
}

const Measurement& measured(const Evaluation& evaluation, const std::string& key) {
  for (const Measurement& one : evaluation.measurements)
    if (one.key == key) return one;
  throw std::runtime_error("not measured: " + key);
}

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
  EXPECT_THAT(refusal<DataError>(one, real), HasSubstr("holds 1 images"));
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
  EXPECT_THAT(found.left_out, testing::Contains(HasSubstr("one class")));
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

TEST_F(EvaluationTest, PagesSayWhatWasDoneForPrivacyAndShowPairsToTheHolderAlone) {
  const fs::path made = corpus("c", classed_images(20, 1));
  put_card(made, "void", "");
  const ImageSets sets = open(made, store("s", classed_images(20, 2)));
  for (const bool is_public : {false, true}) {
    EvaluationOptions options = quick({Metric::kPrecisionRecall, Metric::kFrechetDistance});
    if (is_public) options.status = ReferenceStatus::kDeclaredPublic;
    const Evaluation found = evaluate(sets, nullptr, options);
    const ReportedSet a = reported(sets.corpus), b = reported(sets.reference);
    const EvaluationPictures pictures = evaluation_pictures(sets, found, true);
    EXPECT_EQ(pictures.pairs.empty(), is_public);
    const std::string page = evaluation_html(found, a, b, pictures);
    const std::string said = is_public ? "declared public" : "PRIVATE: these numbers tell";
    EXPECT_THAT(page, AllOf(HasSubstr(said), HasSubstr("VOID")));
    EXPECT_THAT(evaluation_markdown(found, a, b), AllOf(HasSubstr(said), HasSubstr("VOID")));
    EXPECT_EQ(page.find("Nearest pairs") == std::string::npos, is_public);
    const Json json = to_json(found, a, b);
    EXPECT_EQ(json["reference_privacy"]["status"], is_public ? "declared_public" : "private");
    EXPECT_EQ(json["corpus"]["privacy_alarm"], "VOID");
    for (const Json& one : json["measurements"]) {
      EXPECT_EQ(one["corpus_images"], 20);
      EXPECT_EQ(one["reference_images"], 20);
      EXPECT_EQ(one["weights_sha256"], "none");
      EXPECT_EQ(one["reference_split"], "not said");
    }
    EXPECT_EQ(json["precision"], json["measurements"][1]["value"]);
  }
}

/// How often `word` stands in `text`.
int64_t times(const std::string& text, const std::string& word) {
  int64_t found = 0;
  for (std::size_t at = 0; (at = text.find(word, at)) != std::string::npos; at += word.size())
    ++found;
  return found;
}

TEST_F(EvaluationTest, ThePageSaysOnceWhatNumbersShareAndShowsNoEmptyColumn) {
  const ImageSets sets =
      open(corpus("c", classed_images(60, 1)), store("s", classed_images(60, 2)));
  EvaluationOptions options = quick({});
  options.classifier.epochs = 1;
  const auto page = [&] {
    const Evaluation found = evaluate(sets, nullptr, options);
    return evaluation_html(found, reported(sets.corpus), reported(sets.reference), {});
  };
  const std::string all = page();
  EXPECT_EQ(times(all, "uint8 / 127.5 - 1"), 1);  // of three numbers by the classifier
  EXPECT_EQ(times(all, "convolutions 32-64"), 1);
  EXPECT_EQ(times(all, "one training, so its spread is not known"), 1);
  EXPECT_EQ(times(all, "cubic kernel"), 1);
  EXPECT_EQ(times(all, "<caption><strong>pixels</strong>"), 1);
  EXPECT_THAT(all, AllOf(HasSubstr("<td>60 / 60</td>"), HasSubstr("trained on 50 real images"),
                         HasSubstr("<th>ceiling</th><th>label fidelity</th>"),
                         HasSubstr("table.wide th { width: auto; white-space: nowrap; }")));
  options.metrics = {Metric::kClassFrechetDistance};
  EXPECT_THAT(page(), AllOf(HasSubstr("<th>distance</th></tr>"),
                            testing::Not(HasSubstr("<th>ceiling</th>"))));
}

TEST_F(EvaluationTest, FamiliarNamesOfMetricsAreTakenAndFidIsInceptionsAlone) {
  using Metrics = std::vector<Metric>;
  EXPECT_EQ(metrics_of({"is", "kid", "prdc", "fd"}, {"lenet"}),
            (Metrics{Metric::kInceptionScore, Metric::kKid, Metric::kPrecisionRecall,
                     Metric::kFrechetDistance}));
  EXPECT_EQ(metrics_of({"fid"}, {"inception"}), Metrics{Metric::kFrechetDistance});
  EXPECT_THAT(error_message<UsageError>([] {
                metrics_of({"fid"}, {"inception", "lenet"});
              }),
              HasSubstr("--metrics frechet_distance"));
  EXPECT_THAT(error_message<UsageError>([] { metrics_of({"accurcy"}, {"lenet"}); }),
              HasSubstr("did you mean 'accuracy'"));
}

TEST_F(EvaluationTest, MessagesSpeakOfOptionsAndNotOfSettings) {
  SetRequest made, real;
  made.option = "corpus";
  made.path = corpus("c", classed_images(20, 1));
  real.path = folder_ / "nowhere";
  const auto said = [&] { return error_message<DataError>([&] { open_image_sets(made, real); }); };
  EXPECT_THAT(said(), AllOf(HasSubstr("set --reference to"), testing::Not(HasSubstr("data."))));
  real.path = store("s", classed_images(20, 2));
  made.path = folder_ / "nowhere";
  EXPECT_THAT(said(), AllOf(HasSubstr("set CORPUS to"), testing::Not(HasSubstr("data."))));
}

TEST_F(EvaluationTest, ACorpusWithoutACardMakesNoClaimAndRaisesNoAlarm) {
  const ImageSets sets =
      open(corpus("c", classed_images(20, 1)), store("s", classed_images(20, 2)));
  const Evaluation found = evaluate(sets, nullptr, quick({Metric::kFrechetDistance}));
  const ReportedSet a = reported(sets.corpus), b = reported(sets.reference);
  for (const std::string& page :
       {evaluation_html(found, a, b, {}), evaluation_markdown(found, a, b)})
    EXPECT_THAT(page, AllOf(HasSubstr("NO CLAIM"), HasSubstr("beside these images"),
                            testing::Not(HasSubstr("VOID"))));
  EXPECT_FALSE(to_json(found, a, b)["corpus"].contains("privacy_alarm"));
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
