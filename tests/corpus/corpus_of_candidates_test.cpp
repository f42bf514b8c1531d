// Corpora whose images are chosen among candidates: as by hand, whatever the batch or the ranks,
// also where one is continued; only by means that the card counts.
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "corpus/sampled_run.h"
#include "sfumato/core/error.h"
#include "support/error_message.h"
#include "support/thread_ranks.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using test::largest_difference;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

class CandidatesOfACorpus : public test::SampledRun {
 protected:
  /// Puts means of pixels of `classes` classes beside the weights, and their stage on the card.
  void release_means(int64_t classes = 3) const {
    FeatureMeans means;
    means.means = at::zeros({classes, 64}, at::kDouble);
    for (int64_t c = 0; c < classes; ++c) means.means[c].slice(0, 20 * c, 20 * c + 20) += 0.2;
    means.features = "pixels";
    means.features_weights = "none";
    const fs::path file = run() / "release/feature_means.json";
    means.save(file);
    auto card = read_privacy_card(run() / "release/privacy_card.json");
    card["stages"] = {{{"name", "feature_means"}, {"result_sha256", sha256_hex(read_file(file))}}};
    write_json_atomic(run() / "release/privacy_card.json", card);
  }
};

TEST_F(CandidatesOfACorpus, AreChosenAsByHandWhateverTheBatchOrTheRanks) {
  release_means();
  const std::vector<std::string> four = {"sample.candidates=4"};
  // By hand: all candidates of a class in order, and which of them are taken.
  const auto settings = config(four);
  const SamplingModel model = open_sampling_model(find_model(run()), *settings);
  const std::unique_ptr<ImageSampler> sampler = sampler_of(model, *settings);
  std::vector<ImageId> ids;
  std::vector<int64_t> labels;
  for (const ImageId& id : corpus_order(std::vector<int64_t>{3, 2, 2}))
    for (int64_t j = 0; j < 4; ++j) {
      ids.push_back({id.label, 4 * id.index + j});
      labels.push_back(id.label);
    }
  const at::Tensor all = sampler->draw(ids);
  const auto chosen = model.choice->choose(all, labels, 4);
  std::vector<Image> expected;
  for (const auto& rows : chosen)
    for (const int64_t row : rows) {
      const auto* data = all[row].const_data_ptr<uint8_t>();
      expected.push_back({.height = 8, .width = 8, .channels = 1, .pixels = {data, data + 64}});
    }
  const auto whole = draw("whole", 28, four);
  EXPECT_EQ(last_drawn_, 28);
  EXPECT_LE(largest_difference(whole, expected), 0);
  EXPECT_LE(largest_difference(draw("small", 3, four), expected), 1);
  test::ThreadRanks(3).run_well([&](const std::shared_ptr<Communicator>& ranks) {
    const auto own = config(four);
    const SamplingModel mine = open_sampling_model(find_model(run()), *own);
    const std::unique_ptr<ImageSampler> drawing = sampler_of(mine, *own);
    std::unique_ptr<CorpusWriter> writer;
    if (ranks->leads())
      writer = std::make_unique<CorpusWriter>(CorpusSpec{.folder = temp_ / "ranks",
                                                         .images_per_class = {3, 2, 2},
                                                         .shape = mine.shape,
                                                         .settings = {{"seed", 0}}});
    generate_corpus(*ranks, writer.get(), {drawing.get(), 2, mine.shape, 4, mine.choice.get()}, {});
    if (writer) writer->finish(mine.card, mine.origin);
  });
  EXPECT_LE(largest_difference(pictures("ranks"), expected), 1);
}

TEST_F(CandidatesOfACorpus, ContinueInTheirStretch) {
  release_means();
  const std::vector<std::string> two = {"sample.candidates=2"};
  const auto whole = draw("whole", 5, two);
  // Stopped while candidates are drawn: none of the stretch is there yet.
  EXPECT_THROW(draw("stopped", 5, two, /*stop_after=*/5), Interrupted);
  set_stop_requested(false);
  EXPECT_LE(largest_difference(draw("stopped", 5, two), whole), 0);
  EXPECT_EQ(last_drawn_, 14);
  // Killed while a stretch was written: what is there stays, the rest is what it would have been.
  {
    const auto settings = config(two);
    CorpusWriter writer({.folder = temp_ / "killed",
                         .images_per_class = {3, 2, 2},
                         .shape = {1, 8, 8},
                         .settings = {{"seed", settings->sample.seed()}}});
    ASSERT_EQ(writer.next(2).size(), 2u);
    writer.add(std::vector<Image>(2, whole[6]));
  }
  const auto killed = draw("killed", 5, two);
  const std::vector<Image> begun = {killed[0], killed[3]},
                           rest = {killed[1], killed[2], killed[4], killed[5], killed[6]};
  EXPECT_EQ(largest_difference(begun, {whole[6], whole[6]}), 0);
  EXPECT_EQ(largest_difference(rest, {whole[1], whole[2], whole[4], whole[5], whole[6]}), 0);
}

TEST_F(CandidatesOfACorpus, NeedMeansThatTheCardCounts) {
  const auto open = [&](const std::string& setting) {
    const auto settings = config({setting});
    (void)open_sampling_model(find_model(run()), *settings);
  };
  const auto refusal = [&] {
    return test::error_message<Error>([&] { open("sample.candidates=2"); });
  };
  EXPECT_THAT(refusal(),
              AllOf(HasSubstr("feature_means.json' is not there"),
                    HasSubstr("mechanism.stages.feature_means"), HasSubstr("sample.candidates=1")));
  release_means(2);
  EXPECT_THAT(refusal(), AllOf(HasSubstr("2 classes"), HasSubstr("3 are to be drawn")));
  release_means();
  EXPECT_NO_THROW(open("sample.candidates=2"));
  // Means that nobody counts, or others than the card counts, may be exact ones.
  auto card = read_privacy_card(run() / "release/privacy_card.json");
  card["stages"][0]["result_sha256"] = std::string(64, 'a');
  write_json_atomic(run() / "release/privacy_card.json", card);
  EXPECT_THAT(refusal(), HasSubstr("is not what the card beside it counts"));
  card["stages"] = nlohmann::ordered_json::array();
  write_json_atomic(run() / "release/privacy_card.json", card);
  EXPECT_THAT(refusal(), AllOf(HasSubstr("counts no stage 'feature_means'"),
                               HasSubstr("sample.candidates=1")));
  EXPECT_NO_THROW(open("sample.candidates=1")) << "with one candidate nothing is read of them";
}

TEST_F(CandidatesOfACorpus, AReleasedClassifierIsAskedIfTheCardCountsIt) {
  release_means();
  const auto open = [&] {
    const auto settings = config({"sample.candidates=4"});
    return open_sampling_model(find_model(run()), *settings);
  };
  EXPECT_EQ(open().choice_files.size(), 1u);
  FeatureClassifier classifier;
  classifier.weights = at::zeros({3, 64}, at::kDouble);
  classifier.weights[1] += 1;  // light images are of class 1, dark ones of class 2
  classifier.weights[2] -= 1;
  classifier.biases = at::zeros({3}, at::kDouble);
  classifier.features = "pixels";
  classifier.features_weights = "none";
  const fs::path file = run() / "release/feature_classifier.json";
  const auto refusal = [&] { return test::error_message<Error>([&] { (void)open(); }); };
  classifier.save(file);
  EXPECT_THAT(refusal(), HasSubstr("counts no stage 'feature_classifier'"));
  auto card = read_privacy_card(run() / "release/privacy_card.json");
  card["stages"].push_back(
      {{"name", "feature_classifier"}, {"result_sha256", sha256_hex(read_file(file))}});
  write_json_atomic(run() / "release/privacy_card.json", card);
  const SamplingModel model = open();
  EXPECT_EQ(model.choice_files["feature_classifier_sha256"], sha256_hex(read_file(file)));
  const at::Tensor images = at::zeros({8, 8, 8, 1}, at::kByte);
  images.slice(0, 4, 8) += 30;  // as dark ones first, of class 2 as of class 1
  const auto chosen = model.choice->choose(images, std::vector<int64_t>(8, 1), 2);
  EXPECT_THAT(chosen[1], testing::UnorderedElementsAre(4, 5, 6, 7));
  write_file_atomic(file, "{}");
  EXPECT_THAT(refusal(), HasSubstr("is not what the card beside it counts"));
}

TEST(CorpusStretches, AreFewAndEvenAndBounded) {
  EXPECT_THAT(corpus_stretches(7, 4, 784), ElementsAre(7));
  EXPECT_THAT(corpus_stretches(8192, 1, 784), ElementsAre(8192));
  EXPECT_THAT(corpus_stretches(8193, 1, 784), ElementsAre(4096, 8193));
  EXPECT_THAT(corpus_stretches(3, 64, int64_t{1} << 30), ElementsAre(1, 2, 3));
  for (const int64_t total : {1, 999, 60000})
    for (const int64_t candidates : {2, 5, 64})
      for (const int64_t bytes : {784, 3 * 256 * 256}) {
        int64_t begin = 0;
        for (const int64_t end : corpus_stretches(total, candidates, bytes)) {
          EXPECT_GT(end, begin);
          EXPECT_LE((end - begin) * candidates, 8192);
          EXPECT_LE((end - begin) * candidates * bytes, int64_t{1} << 28);
          begin = end;
        }
        EXPECT_EQ(begin, total);
      }
}

}  // namespace
}  // namespace sfumato
