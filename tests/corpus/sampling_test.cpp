#include <ATen/Parallel.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "sfumato/config/config.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/sha256.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/corpus/generate_corpus.h"
#include "sfumato/corpus/sampling_model.h"
#include "sfumato/generate/diffusion/solver.h"
#include "sfumato/io/json_file.h"
#include "sfumato/models/checkpoint_io.h"
#include "sfumato/report/privacy_card.h"
#include "support/error_message.h"
#include "support/temp_folder.h"
#include "support/thread_ranks.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

UNet2DConfig tiny_config(std::optional<int64_t> classes) {
  UNet2DConfig config;
  config.sample_size = {{8, 8}};
  config.in_channels = config.out_channels = 1;
  config.down_block_types = {"DownBlock2D", "AttnDownBlock2D"};
  config.up_block_types = {"AttnUpBlock2D", "UpBlock2D"};
  config.block_out_channels = {8, 16};
  config.layers_per_block = 1;
  config.norm_num_groups = 4;
  config.num_class_embeds = classes;
  return config;
}

/// A run directory with a released random network of three classes and a row for "no label".
class SamplingTest : public testing::Test {
 protected:
  SamplingTest() {
    at::set_num_threads(1);  // the networks are so small that threads only wait for one another
    make_run(4);
  }
  ~SamplingTest() override { set_stop_requested(false); }

  void make_run(std::optional<int64_t> rows) {
    UNet2D network(tiny_config(rows));
    network.name_parameters();
    network.initialise(3);
    fs::remove_all(run());
    NoiseScheduleOptions schedule;
    schedule.num_train_timesteps = 100;
    save_pipeline(run() / "release", network.config(), named_values(network.parameters()),
                  ddpm_scheduler_config(schedule, Prediction::kVPrediction));
    PrivacyCard card;
    card.status = PrivacyCard::Status::kPrivate;
    card.epsilon = 2.5;
    card.delta = 1e-5;
    card.unit = "one image";
    card.adjacency = "add_remove";
    card.num_classes = rows ? *rows - 1 : 0;
    card.weights_sha256 =
        sha256_hex(read_file(run() / "release/unet/diffusion_pytorch_model.safetensors"));
    write_json_atomic(run() / "release/privacy_card.json", to_json(card));
  }

  fs::path run() const { return temp_ / "run"; }

  /// Puts a label histogram beside the weights, and its stage on their card.
  void release_histogram(const std::string& bytes) const {
    const fs::path path = run() / "release/privacy_card.json";
    std::ofstream(run() / "release/label_histogram.json") << bytes;
    auto card = read_privacy_card(path);
    card["stages"] = {{{"name", "label_histogram"}, {"result_sha256", sha256_hex(bytes)}}};
    write_json_atomic(path, card);
  }

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

  static std::unique_ptr<Config> config(std::vector<std::string> overrides = {}) {
    overrides.push_back("sample.steps=6");
    return load_config(std::nullopt, overrides);
  }

  /// Draws a corpus of 3 + 2 + 2 images into temp_/name and returns its pictures in order.
  std::vector<Image> draw(const std::string& name, int64_t batch,
                          std::vector<std::string> overrides = {}, int64_t stop_after = -1) {
    const auto settings = config(std::move(overrides));
    const SamplingModel model = open_sampling_model(find_model(run()), *settings);
    const std::unique_ptr<ImageSampler> sampler = sampler_of(model, *settings);
    CorpusSpec spec{.folder = temp_ / name,
                    .images_per_class = {3, 2, 2},
                    .shape = model.shape,
                    .settings = {{"seed", settings->sample.seed()}}};
    CorpusWriter writer(std::move(spec));
    const CorpusSource source{sampler.get(), batch, model.shape, settings->sample.candidates(),
                              model.choice.get()};
    generate_corpus(*single_process(), &writer, source, [&](double done, int64_t drawn) {
      last_drawn_ = drawn;
      if (done == static_cast<double>(stop_after)) set_stop_requested(true);
    });
    writer.finish(model.card, model.origin);
    return pictures(name);
  }
  /// Those of a corpus in temp_/name.
  std::vector<Image> pictures(const std::string& name) const {
    std::vector<Image> all;
    for (const auto& [label, count] : {std::pair{0, 3}, {1, 2}, {2, 2}})
      for (int i = 0; i < count; ++i) {
        const std::string file =
            "images/" + std::to_string(label) + "/00000" + std::to_string(i) + ".png";
        all.push_back(decode_image(read_file(temp_ / name / file), file));
      }
    return all;
  }

  test::TempFolder temp_;
  int64_t last_drawn_ = 0;
};

int largest_difference(const std::vector<Image>& a, const std::vector<Image>& b) {
  int largest = a.size() == b.size() ? 0 : 1000;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    for (std::size_t p = 0; p < a[i].pixels.size(); ++p)
      largest = std::max(largest, std::abs(a[i].pixels[p] - b[i].pixels[p]));
  return largest;
}

TEST_F(SamplingTest, TheBatchDoesNotChangeTheImages) {
  for (const std::vector<std::string>& how : std::vector<std::vector<std::string>>{
           {}, {"sample.sampler=ddpm"}, {"sample.guidance=1.5"}}) {
    const std::string name = how.empty() ? "plain" : how[0];
    const auto seven = draw(name + "7", 7, how);
    EXPECT_LE(largest_difference(draw(name + "1", 1, how), seven), 1) << name;
    EXPECT_LE(largest_difference(draw(name + "3", 3, how), seven), 1) << name;
    auto other_seed = how;
    other_seed.push_back("sample.seed=1");
    EXPECT_GT(largest_difference(draw(name + "s", 7, other_seed), seven), 20) << name;
    EXPECT_GT(largest_difference({seven[0]}, {seven[1]}), 20) << name;
  }
}

TEST_F(SamplingTest, AStopSignalEndsAtABatchAndTheCorpusContinues) {
  const auto whole = draw("whole", 2);
  EXPECT_THROW(draw("stopped", 2, {}, 4), Interrupted);
  EXPECT_EQ(last_drawn_, 4);
  EXPECT_FALSE(fs::exists(temp_ / "stopped/lineage.json"));
  set_stop_requested(false);
  EXPECT_LE(largest_difference(draw("stopped", 3), whole), 1);
  EXPECT_EQ(last_drawn_, 3);  // what was there was not drawn again
  EXPECT_THROW(draw("stopped", 3), UsageError);
}

TEST_F(SamplingTest, SeveralRanksDrawTheImagesOfOneProcess) {
  const auto whole = draw("whole", 7);
  for (const int64_t size : {2, 3, 9}) {  // more ranks than images of the last batch, too
    const std::string name = "of" + std::to_string(size);
    std::atomic<int> draws = 0;
    test::ThreadRanks(size).run_well([&](const std::shared_ptr<Communicator>& ranks) {
      const auto settings = config();
      const SamplingModel model = open_sampling_model(find_model(run()), *settings);
      const std::unique_ptr<ImageSampler> sampler = sampler_of(model, *settings);
      std::unique_ptr<CorpusWriter> writer;
      if (ranks->leads())
        writer = std::make_unique<CorpusWriter>(
            CorpusSpec{.folder = temp_ / name,
                       .images_per_class = {3, 2, 2},
                       .shape = model.shape,
                       .settings = {{"seed", settings->sample.seed()}}});
      struct Counting : ImageSampler {
        at::Tensor draw(std::span<const ImageId> images) const override {
          *count += static_cast<int>(images.size());
          return inner->draw(images);
        }
        nlohmann::ordered_json settings() const override { return inner->settings(); }
        const ImageSampler* inner = nullptr;
        std::atomic<int>* count = nullptr;
      } counting;
      counting.inner = sampler.get();
      counting.count = &draws;
      generate_corpus(*ranks, writer.get(), {&counting, 2, model.shape}, {});
      if (writer) writer->finish(model.card, model.origin);
    });
    EXPECT_EQ(draws, 7) << "every image is drawn once";
    EXPECT_LE(largest_difference(pictures(name), whole), 1);
  }
}

TEST_F(SamplingTest, AStopOfRanksEndsAllAndTheCorpusContinues) {
  set_stop_requested(true);
  const auto errors = test::ThreadRanks(2).run([&](const std::shared_ptr<Communicator>& ranks) {
    const auto settings = config();
    const SamplingModel model = open_sampling_model(find_model(run()), *settings);
    const std::unique_ptr<ImageSampler> sampler = sampler_of(model, *settings);
    std::unique_ptr<CorpusWriter> writer;
    if (ranks->leads())
      writer = std::make_unique<CorpusWriter>(
          CorpusSpec{.folder = temp_ / "stopped",
                     .images_per_class = {3, 2, 2},
                     .shape = model.shape,
                     .settings = {{"seed", settings->sample.seed()}}});
    generate_corpus(*ranks, writer.get(), {sampler.get(), 2, model.shape}, {});
  });
  set_stop_requested(false);
  for (const std::exception_ptr& error : errors) {
    ASSERT_TRUE(error);
    EXPECT_THROW(std::rethrow_exception(error), Interrupted);
  }
  EXPECT_LE(largest_difference(draw("stopped", 3), draw("whole", 3)), 1);
}

TEST_F(SamplingTest, CandidatesAreChosenAsByHandWhateverTheBatchOrTheRanks) {
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

TEST_F(SamplingTest, ACorpusOfCandidatesContinues) {
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

TEST_F(SamplingTest, CandidatesNeedMeansThatTheCardCounts) {
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

TEST_F(SamplingTest, CardTravelsWithTheWeights) {
  draw("c", 7);
  const auto card = read_json(temp_ / "c/privacy_card.json");
  EXPECT_EQ(card, read_json(run() / "release/privacy_card.json"));
  EXPECT_EQ(card["epsilon"], 2.5);
  EXPECT_EQ(read_json(temp_ / "c/lineage.json")["origin"]["kind"], "run");
  EXPECT_EQ(read_json(temp_ / "c/lineage.json")["origin"]["weights_sha256"],
            card["weights_sha256"]);
}

TEST_F(SamplingTest, NoNameOfAFolderLeavesWithTheCorpus) {
  fs::rename(run(), temp_ / "hospital_of_jane");
  fs::create_directory_symlink("hospital_of_jane", run());
  const auto settings = config();
  const SamplingModel model =
      open_sampling_model(find_model(temp_ / "hospital_of_jane"), *settings);
  EXPECT_THAT(model.origin.dump() + model.card.dump(), Not(HasSubstr("hospital")));
  EXPECT_THAT(model.origin.dump(), Not(HasSubstr(temp_.path().string())));
}

TEST_F(SamplingTest, WithoutACardOrWithAnothersThereIsNoClaim) {
  const auto card_path = run() / "release/privacy_card.json";
  auto card = read_privacy_card(card_path);
  card["weights_sha256"] = sha256_hex("other weights");
  write_json_atomic(card_path, card);
  auto settings = config();
  EXPECT_EQ(open_sampling_model(find_model(run()), *settings).card["status"], "void");
  // A card that does not say of which weights it speaks speaks of none.
  for (const nlohmann::json& hash : {nlohmann::json(), nlohmann::json(7), nlohmann::json("")}) {
    card["weights_sha256"] = hash;
    write_json_atomic(card_path, card);
    const auto found = open_sampling_model(find_model(run()), *settings).card;
    EXPECT_EQ(found["status"], "void") << hash;
    EXPECT_TRUE(found["epsilon"].is_null()) << hash;
  }
  card.erase("weights_sha256");
  write_json_atomic(card_path, card);
  EXPECT_THAT(card_markdown(open_sampling_model(find_model(run()), *settings).card),
              HasSubstr("does not say which weights"));
  fs::remove(card_path);
  const SamplingModel model = open_sampling_model(find_model(run()), *settings);
  EXPECT_EQ(model.card["status"], "void");
  EXPECT_THAT(card_markdown(model.card), HasSubstr("no privacy card found beside the weights"));
}

TEST_F(SamplingTest, AReleaseBesideItsLedgerIsThatOfTheRun) {
  const fs::path release = run() / "release";
  EXPECT_EQ(find_model(release).run, fs::path());
  write_file_atomic(run() / "ledger.jsonl", "whatever it says");
  fs::create_directory_symlink(release, temp_ / "way");
  for (const fs::path& way : {release, release / "", temp_ / "way"}) {
    const ModelPlace place = find_model(way);
    EXPECT_TRUE(fs::equivalent(place.run, run())) << way;
    EXPECT_TRUE(fs::equivalent(place.model, release)) << way;
  }
  fs::copy(release, temp_ / "lent", fs::copy_options::recursive);
  EXPECT_EQ(find_model(temp_ / "lent").run, fs::path());
}

TEST_F(SamplingTest, NothingOfAClaimIsLeftOnWhatIsNotPrivate) {
  const fs::path path = run() / "release/privacy_card.json";
  auto card = read_privacy_card(path);
  card["summary"] = "and yet it holds";
  for (const char* status : {"void", "not_private"}) {
    card["status"] = status;
    write_json_atomic(path, card);
    const auto found = open_sampling_model(find_model(run()), *config()).card;
    EXPECT_EQ(found["status"], status);
    for (const char* key : {"epsilon", "delta", "recompute", "selection"})
      EXPECT_TRUE(found[key].is_null()) << key;
    EXPECT_THAT(found.dump() + card_markdown(found), Not(HasSubstr("2.5"))) << status;
    EXPECT_THAT(found.dump(), Not(HasSubstr("and yet"))) << status;
    EXPECT_EQ(found["public_facts"]["num_classes"], 3);
  }
}

TEST_F(SamplingTest, SchedulerFileFillsWhatNobodySet) {
  auto settings = config({"diffusion.num_train_timesteps=50"});
  open_sampling_model(find_model(run()), *settings);
  EXPECT_EQ(settings->diffusion.prediction(), Prediction::kVPrediction);
  EXPECT_EQ(settings->diffusion.num_train_timesteps(), 50);  // set by hand: stays
  settings = config();
  open_sampling_model(find_model(run() / "release"), *settings);
  EXPECT_EQ(settings->diffusion.num_train_timesteps(), 100);

  const auto path = run() / "release/scheduler/scheduler_config.json";
  const auto original = read_json(path);
  const auto refused = [&](const char* key, const nlohmann::json& value) {
    auto changed = original;
    changed["thresholding"] = true;  // clipping, as long as sample_max_value is 1
    changed[key] = value;
    write_json_atomic(path, changed);
    auto fresh = config();
    EXPECT_THROW(open_sampling_model(find_model(run()), *fresh), DataError) << key;
  };
  refused("_class_name", "FlowMatchEulerDiscreteScheduler");
  refused("_class_name", "ScoreSdeVeScheduler");
  refused("trained_betas", {0.1, 0.2});
  refused("sample_max_value", 2);
  refused("beta_schedule", "laplace");
  refused("beta_start", "small");
}

TEST_F(SamplingTest, NetworksOfLatentsAndOthersAreRefusedByName) {
  const auto message = [&](const fs::path& folder) {
    auto settings = config();
    return test::error_message<DataError>(
        [&] { open_sampling_model(find_model(folder), *settings); });
  };
  const fs::path release = run() / "release";
  nlohmann::json index = read_json(release / "model_index.json");
  index["_class_name"] = "LDMPipeline";
  index["vqvae"] = {"diffusers", "VQModel"};
  write_json_atomic(release / "model_index.json", index);
  for (const fs::path& folder : {run(), release, release / "unet"})
    EXPECT_THAT(message(folder), AllOf(HasSubstr("LDMPipeline"), HasSubstr("latents")));
}

TEST_F(SamplingTest, FindsClassesAndTheirAbsence) {
  auto settings = config();
  SamplingModel model = open_sampling_model(find_model(run()), *settings);
  EXPECT_EQ(model.num_classes, 3);
  EXPECT_EQ(model.null_label, 3);
  settings = config({"data.num_classes=4"});
  model = open_sampling_model(find_model(run()), *settings);
  EXPECT_EQ(model.num_classes, 4);
  EXPECT_EQ(model.may_be_untrained, (std::vector<bool>{false, false, false, true}));
  EXPECT_FALSE(model.null_label);
  settings = config({"data.num_classes=4", "sample.guidance=1"});
  EXPECT_THROW(open_sampling_model(find_model(run()), *settings), UsageError);
  settings = config({"data.num_classes=5"});
  EXPECT_THROW(open_sampling_model(find_model(run()), *settings), UsageError);
  make_run(std::nullopt);
  settings = config();
  EXPECT_EQ(open_sampling_model(find_model(run()), *settings).num_classes, 0);
  settings = config({"sample.guidance=1"});
  EXPECT_THROW(open_sampling_model(find_model(run()), *settings), UsageError);
}

TEST_F(SamplingTest, ClassNamesComeFromTheCard) {
  const fs::path path = run() / "release/privacy_card.json";
  EXPECT_THAT(open_sampling_model(find_model(run()), *config()).class_names,
              ElementsAre("0", "1", "2"));
  auto card = read_privacy_card(path);
  card["public_facts"]["class_names"] = {"ant", "bird", "cat"};
  card["public_facts"]["classes_that_may_be_empty"] = {"bird"};
  write_json_atomic(path, card);
  SamplingModel model = open_sampling_model(find_model(run()), *config());
  EXPECT_THAT(model.class_names, ElementsAre("ant", "bird", "cat"));
  EXPECT_EQ(model.may_be_untrained, (std::vector<bool>{false, true, false}));
  EXPECT_FALSE(model.any_may_be_untrained);
  const auto refused = [&](const std::string& overrides) {
    const auto settings = config({overrides});
    return test::error_message<UsageError>(
        [&] { open_sampling_model(find_model(run()), *settings); });
  };
  EXPECT_THAT(refused("data.class_names=ant,bird,dog"),
              HasSubstr("calls class 2 'dog', and the privacy card beside the network 'cat'"));
  EXPECT_THAT(refused("data.num_classes=4"), HasSubstr("names 3"));
  card["public_facts"]["classes_that_may_be_empty"] = {"*"};
  write_json_atomic(path, card);
  EXPECT_TRUE(open_sampling_model(find_model(run()), *config()).any_may_be_untrained);
  card["public_facts"]["class_names"] = {"ant", "new\nline", "cat"};
  write_json_atomic(path, card);
  EXPECT_THROW(open_sampling_model(find_model(run()), *config()), DataError);
}

TEST_F(SamplingTest, FindModelSaysWhatIsMissing) {
  EXPECT_EQ(find_model(run()).model, run() / "release");
  EXPECT_EQ(find_model(run()).run, run());
  EXPECT_TRUE(find_model(run()).config_file.empty());
  std::ofstream(run() / "config.yaml") << "run:\n";
  EXPECT_EQ(find_model(run()).config_file, run() / "config.yaml");
  EXPECT_TRUE(find_model(run() / "release").run.empty());
  EXPECT_EQ(find_model(run() / "release/unet").model, run() / "release/unet");
  EXPECT_THROW(find_model(temp_ / "nowhere"), UsageError);
  EXPECT_THAT(test::error_message<UsageError>([&] { find_model(run() / "release" / "scheduler"); }),
              AllOf(HasSubstr("release/scheduler' is neither a run directory (release/) nor"),
                    HasSubstr("diffusion: model_index.json"), HasSubstr("name one of these")));
  fs::create_directories(temp_ / "young/private");
  try {
    find_model(temp_ / "young");
    FAIL() << "a run without a release was accepted";
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), HasSubstr("young/config.yaml --resume run.dir="));
  }
}

TEST_F(SamplingTest, ProportionsComeFromTheReleasedHistogram) {
  const fs::path file = run() / "release/label_histogram.json";
  const auto proportions = [&] {
    return open_sampling_model(find_model(run()), *config()).class_proportions;
  };
  EXPECT_THAT(proportions(), ElementsAre());
  release_histogram(R"({"noisy_counts": [3, 1, -2], "proportions": [0.75, 0.25, 0]})");
  EXPECT_THAT(proportions(), ElementsAre(0.75, 0.25, 0));
  for (const char* wrong :
       {R"([])", R"({})", R"({"proportions": 3})", R"({"proportions": [0.5, 0.4]})",
        R"({"proportions": [1.5, -0.5]})", R"({"proportions": ["a"]})", R"({"proportions": []})",
        R"({"proportions": [)"}) {
    release_histogram(wrong);
    EXPECT_THROW(proportions(), DataError) << wrong;
  }
  make_run(std::nullopt);  // a network without classes has no use for it
  std::ofstream(file) << R"({"proportions": [0.75, 0.25, 0]})";
  EXPECT_THAT(proportions(), ElementsAre());
}

TEST_F(SamplingTest, CountsThatTheCardDoesNotCoverAreRefused) {
  const fs::path file = run() / "release/label_histogram.json";
  const auto message = [&] {
    return test::error_message<DataError>(
        [&] { open_sampling_model(find_model(run()), *config()); });
  };
  std::ofstream(file) << R"({"proportions": [0.75, 0.25, 0]})";
  EXPECT_THAT(message(), AllOf(HasSubstr("counts no stage"), HasSubstr("move it away")));
  release_histogram(R"({"proportions": [0.75, 0.25, 0]})");
  std::ofstream(file) << R"({"proportions": [0.25, 0.75, 0]})";
  EXPECT_THAT(message(), AllOf(HasSubstr("is not what the card"), HasSubstr("move it away")));
  fs::remove(run() / "release/privacy_card.json");
  EXPECT_THAT(message(), HasSubstr("counts no stage"));
}

}  // namespace
}  // namespace sfumato
