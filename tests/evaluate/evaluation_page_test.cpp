// What is said of an evaluation: pages, JSON, and messages in the words of its options.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "evaluate/evaluation_fixture.h"
#include "sfumato/evaluate/evaluation_report.h"
#include "support/error_message.h"

namespace sfumato {
namespace {

using test::classed_images;
using test::error_message;
using test::EvaluationTest;
using test::Json;
namespace fs = std::filesystem;
using test::quick;
using test::write_picture;
using ::testing::AllOf;
using ::testing::HasSubstr;

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
                         HasSubstr("accuracy by class, trained on the corpus (small)"),
                         HasSubstr("table.wide th { width: auto; white-space: nowrap; }")));
  options.metrics = {Metric::kClassFrechetDistance};
  EXPECT_THAT(page(), AllOf(HasSubstr("<th>distance</th></tr>"),
                            testing::Not(HasSubstr("<th>ceiling</th>"))));
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

TEST_F(EvaluationTest, MessagesThatNeedASettingOfPrepareSayWhoseItIs) {
  SetRequest made, real;
  made.option = "corpus";
  made.path = corpus("c", classed_images(20, 1));
  real.path = folder_ / "two";
  for (int i = 0; i < 4; ++i)
    write_picture(real.path / fmt::format("{}.png", i), classed_images(1, 1)[0]);
  write_file_atomic(real.path / "metadata.csv",
                    "file_name,colour,shape\n0.png,0,1\n1.png,1,0\n2.png,0,1\n3.png,1,0\n");
  const auto said = [&] { return error_message<DataError>([&] { open_image_sets(made, real); }); };
  EXPECT_THAT(said(), AllOf(HasSubstr("data.label_column"),
                            HasSubstr("; settings named data.* are those of `sfumato prepare`, "
                                      "whose store --reference takes")));
  std::swap(made.path, real.path);
  EXPECT_THAT(said(), HasSubstr("`sfumato prepare`, whose store CORPUS takes"));
}

}  // namespace
}  // namespace sfumato
