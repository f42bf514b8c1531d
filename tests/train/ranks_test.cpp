// One run on several ranks, which are threads here: the same bits whatever their number, one
// ledger, noise of each rank's own, and an end in order.
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>

#include "audit/gan_family.h"
#include "sfumato/core/error.h"
#include "support/error_message.h"
#include "support/thread_ranks.h"
#include "train/tiny_run.h"

namespace sfumato {
namespace {

using namespace test;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
namespace fs = std::filesystem;

class RanksOfTraining : public GanFamily {
 protected:
  using Settings = std::vector<std::string>;

  /// One test key on all ranks, so that noise is that of one process.
  static TrainOptions with_test_key(std::shared_ptr<Communicator> ranks, uint64_t seed = 5) {
    return {std::move(ranks), [seed] { return SecureKey::insecure_for_tests(seed); }};
  }
  /// Trains on `size` ranks, of which others than the first have run.dir elsewhere.
  void train_on(int64_t size, const std::string& run, const Settings& changes,
                bool is_resumed = false, uint64_t seed = 5) const {
    ThreadRanks(size).run_well([&](const std::shared_ptr<Communicator>& ranks) {
      const auto settings = config(ranks->leads() ? run : "of_followers", changes);
      const TrainResult result =
          train(*settings, is_resumed && ranks->leads(), with_test_key(ranks, seed));
      EXPECT_GE(result.steps, 6);
    });
    EXPECT_FALSE(fs::exists(folder / "of_followers")) << "followers write nothing";
  }
  void expect_same_run(const std::string& a, const std::string& b) const {
    for (const int step : {2, 4, 6}) {
      std::vector<std::string> names;
      for (const auto& entry : fs::directory_iterator(checkpoint_path(a, step)))
        if (entry.path().extension() == ".safetensors")
          names.push_back(entry.path().filename().string());
      EXPECT_GE(names.size(), 3u);
      for (const std::string& name : names)
        EXPECT_EQ(read_file(checkpoint_path(a, step) / name),
                  read_file(checkpoint_path(b, step) / name))
            << b << ", step " << step << ": " << name;
    }
  }
  /// What each rank threw, as text; "" for none.
  static std::vector<std::string> messages(const std::vector<std::exception_ptr>& errors) {
    std::vector<std::string> texts;
    for (const std::exception_ptr& error : errors) {
      texts.emplace_back();
      if (!error) continue;
      try {
        std::rethrow_exception(error);
      } catch (const Error& thrown) {
        texts.back() = std::to_string(thrown.exit_code()) + " " + thrown.what();
      }
    }
    return texts;
  }
  /// Images of each step, as the private metrics say.
  std::vector<double> batch_sizes(const std::string& run) const {
    std::vector<double> sizes;
    for (const std::string& line : lines_of(folder / run / "private/metrics.jsonl"))
      sizes.push_back(nlohmann::json::parse(line).at("batch_size"));
    return sizes;
  }
};

TEST_F(RanksOfTraining, CheckpointsHaveTheSameBytesForEveryNumberOfRanks) {
  const Settings changes = {"optimizer.name=adamw",     "optimizer.weight_decay=0.01",
                            "optimizer.decay=cosine",   "optimizer.ema_decay=0.9",
                            "optimizer.warmup_steps=2", "diffusion.shift_pixels=1"};
  train_on(1, "alone", changes);
  EXPECT_GT(differing(checkpoint("alone", 4).model, checkpoint("alone", 6).model), 0);
  for (int64_t size = 2; size <= 4; ++size) {
    const std::string run = "of" + std::to_string(size);
    forget_uses();
    train_on(size, run, changes);
    expect_same_run("alone", run);
    EXPECT_EQ(read_file(folder / "alone/release/unet/diffusion_pytorch_model.safetensors"),
              read_file(folder / run / "release/unet/diffusion_pytorch_model.safetensors"));
    const LedgerSummary summary = ledger(run);
    EXPECT_THAT(summary.problems, IsEmpty());
    EXPECT_EQ(summary.charged_steps, 6) << "one charge a step, whatever the ranks";
    EXPECT_THAT(summary.sessions, SizeIs(1));
    EXPECT_EQ(summary.plan_hash, ledger("alone").plan_hash) << "ranks are no part of the mechanism";
  }
}

TEST_F(RanksOfTraining, AGanWithSpectralNormsAndAWarmUpHasTheSameBytesToo) {
  nlohmann::json judge = discriminator();
  judge["norm"] = "spectral";
  write("discriminator", judge);
  const Settings changes = gan(
      {"mechanism.stages.central_images.noise_multiplier=2",
       "mechanism.stages.central_images.releases=3",
       "mechanism.stages.central_images.sample_rate=0.5", "warmup.steps=4", "warmup.batch=5",
       "mechanism.stages.class_gaussians.noise_multiplier=2",
       "mechanism.stages.class_gaussians.frequencies=3", "warmup.gaussians.steps=2",
       "warmup.gaussians.images=12", "mechanism.stages.mean_embedding.noise_multiplier=2",
       "mechanism.stages.mean_embedding.frequencies=20", "warmup.embedding.steps=2",
       "warmup.embedding.images=12", "warmup.embedding.generator_steps=2",
       "warmup.embedding.generator_batch=4", "mechanism.stages.semantic_query.noise_multiplier=2",
       "mechanism.stages.semantic_query.features=pixels",
       "mechanism.stages.semantic_query.public_store=" + (folder / "public").string(),
       "warmup.semantic.steps=2"});
  write_tiny_store(folder / "public", {40, 41, 42, 43, 44, 45});
  std::vector<std::string> warmed = changes;
  std::erase(warmed, "warmup.steps=0");
  train_on(1, "alone", warmed);
  for (int64_t size = 2; size <= 3; ++size) {
    const std::string run = "of" + std::to_string(size);
    forget_uses();
    train_on(size, run, warmed);
    expect_same_run("alone", run);
    EXPECT_EQ(ledger(run).charged_steps, 6);
    EXPECT_EQ(ledger(run).stage_charges, ledger("alone").stage_charges) << "stages run once";
  }
}

TEST_F(RanksOfTraining, ARunGoesOnWithAnyNumberOfThem) {
  train_on(1, "whole", {});
  const auto cut = [&](const std::string& from, const std::string& to) {
    copy_run(from, to, 4);
    std::vector<std::string> lines = lines_of(folder / from / "ledger.jsonl");
    while (nlohmann::json::parse(lines.back()).value("step", 0) != 4 ||
           nlohmann::json::parse(lines.back())["kind"] != "checkpoint")
      lines.pop_back();
    write_lines(folder / to / "ledger.jsonl", lines);
  };
  cut("whole", "alone");
  train_on(1, "alone", {}, /*is_resumed=*/true, 6);
  forget_uses();
  train_on(3, "first_on_three", {});
  for (const int64_t size : {1, 2, 4}) {
    const std::string run = "then" + std::to_string(size);
    cut("first_on_three", run);
    train_on(size, run, {}, /*is_resumed=*/true, 6);
    expect_same_run("alone", run);
    EXPECT_EQ(ledger(run).charged_steps, 6);
    EXPECT_THAT(ledger(run).sessions, SizeIs(2));
  }
}

TEST_F(RanksOfTraining, OrdinaryTrainingIsThatOfOneProcessUpToRounding) {
  const Settings plain = {"privacy.enabled=false"};
  train_on(1, "alone", plain);
  forget_uses();
  train_on(3, "of3", plain);
  const NamedTensors a = checkpoint("alone", 6).model, b = checkpoint("of3", 6).model;
  for (std::size_t i = 0; i < a.size(); ++i)
    EXPECT_TRUE(a[i].second.allclose(b[i].second, 1e-3, 1e-5)) << a[i].first;
}

TEST_F(RanksOfTraining, KeysOfTheNoiseDifferAndNeverCross) {
  ThreadRanks group(3);
  std::mutex mutex;
  std::vector<std::array<std::byte, 32>> keys;
  group.run_well([&](const std::shared_ptr<Communicator>& ranks) {
    const auto settings = config(ranks->leads() ? "run" : "of_followers");
    train(*settings, false, {ranks, [&] {
                               SecureKey key = SecureKey::generate();
                               const std::lock_guard lock(mutex);
                               std::memcpy(keys.emplace_back().data(), key.chacha_key().words, 32);
                               return key;
                             }});
  });
  ASSERT_EQ(keys.size(), 3u);
  const std::vector<std::byte>& sent = group.broadcasts();
  EXPECT_GT(sent.size(), 32u);
  for (std::size_t i = 0; i < keys.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) EXPECT_NE(keys[i], keys[j]);
    // Nor half of one.
    for (const std::size_t half : {0u, 16u})
      EXPECT_EQ(std::search(sent.begin(), sent.end(), keys[i].begin() + half,
                            keys[i].begin() + half + 16),
                sent.end());
  }
  // Two runs draw other samples and other noise.
  forget_uses();
  ThreadRanks(3).run_well([&](const std::shared_ptr<Communicator>& ranks) {
    train(*config(ranks->leads() ? "again" : "of_followers"), false, {ranks});
  });
  const NamedTensors first = checkpoint("run", 2).model, second = checkpoint("again", 2).model;
  EXPECT_EQ(differing(first, second), static_cast<int>(first.size()));
  EXPECT_FALSE(ledger("run").insecure());
}

TEST_F(RanksOfTraining, AStoreThatDiffersIsRefusedByTheNameOfItsRank) {
  std::vector<int> other = first_records(kTinyRecords);
  other.back() = 77;
  write_tiny_store(folder / "other_store", other);
  const auto errors = ThreadRanks(3).run([&](const std::shared_ptr<Communicator>& ranks) {
    const auto settings = config("run");
    if (ranks->rank() == 1)
      settings->data.store.set((folder / "other_store").string(), "this test");
    train(*settings, false, {ranks});
  });
  for (const std::string& message : messages(errors))
    EXPECT_THAT(message, AllOf(HasSubstr("2 the record store of rank 1 is not that of rank 0")));
  EXPECT_FALSE(fs::exists(folder / "run/ledger.jsonl"));
}

TEST_F(RanksOfTraining, SettingsThatDifferAreRefusedByTheNameOfTheirSection) {
  for (const std::string change : {"mechanism.steps=7", "optimizer.learning_rate=0.5",
                                   "run.checkpoint_every=3", "diffusion.draws=3"}) {
    const auto errors = ThreadRanks(2).run([&](const std::shared_ptr<Communicator>& ranks) {
      const auto settings = ranks->leads() ? config("run") : config("run", {change});
      train(*settings, false, {ranks});
    });
    const std::string section = change.substr(0, change.find('.'));
    for (const std::string& message : messages(errors))
      EXPECT_THAT(message, HasSubstr("2 the configuration (" + section + ".*) of rank 1"));
  }
  // Another description of the network under the same name.
  nlohmann::json network = tiny_network();
  network["norm_num_groups"] = 2;
  fs::create_directory(folder / "elsewhere");
  write_file_atomic(folder / "elsewhere/network.json", network.dump());
  const auto errors = ThreadRanks(2).run([&](const std::shared_ptr<Communicator>& ranks) {
    const auto settings = config("run");
    if (!ranks->leads())
      settings->model.config.set((folder / "elsewhere/network.json").string(), "this test");
    train(*settings, false, {ranks});
  });
  for (const std::string& message : messages(errors)) EXPECT_THAT(message, HasSubstr("2 the conf"));
  EXPECT_FALSE(fs::exists(folder / "run/ledger.jsonl"));
}

TEST_F(RanksOfTraining, PerformanceIsEachRanksOwn) {
  train_on(1, "alone", {"performance.physical_batch=3"});
  forget_uses();
  ThreadRanks(2).run_well([&](const std::shared_ptr<Communicator>& ranks) {
    // The smallest counts: what fits one need not fit another.
    const auto settings = config(
        "run", {ranks->leads() ? "performance.physical_batch=5" : "performance.physical_batch=3"});
    train(*settings, false, with_test_key(ranks));
  });
  expect_same_run("alone", "run");
}

TEST_F(RanksOfTraining, AnErrorOfTheFirstIsThatOfAll) {
  start("run");
  forget_uses();
  const auto errors = ThreadRanks(3).run([&](const std::shared_ptr<Communicator>& ranks) {
    train(*config("run"), false, {ranks});  // there is a run already
  });
  const std::vector<std::string> texts = messages(errors);
  EXPECT_THAT(texts[0], HasSubstr("2 "));
  EXPECT_THAT(texts[1], AllOf(HasSubstr("2 rank 0: "), HasSubstr(texts[0].substr(2))));
  EXPECT_EQ(texts[2], texts[1]);
}

TEST_F(RanksOfTraining, AStopEndsAllAtTheSameStepAndTheRunGoesOn) {
  set_stop_requested(true);
  const auto errors = ThreadRanks(3).run([&](const std::shared_ptr<Communicator>& ranks) {
    train(*config(ranks->leads() ? "run" : "of_followers"), false, with_test_key(ranks));
  });
  set_stop_requested(false);
  for (const std::string& message : messages(errors))
    EXPECT_THAT(message, HasSubstr("130 stopped after step 0"));
  EXPECT_EQ(ledger("run").last_event, "stop");
  train_on(2, "run", {}, /*is_resumed=*/true, 6);
  EXPECT_EQ(ledger("run").charged_steps, 6);
}

/// A rank that a signal asks to stop once the ledger of the run holds two charges: what it says in
/// answer to questions of yes or no, which are sums of one integer.
class Signalled : public Communicator {
 public:
  Signalled(std::shared_ptr<Communicator> ranks, fs::path ledger)
      : ranks_(std::move(ranks)), ledger_(std::move(ledger)) {}
  int64_t rank() const override { return ranks_->rank(); }
  int64_t size() const override { return ranks_->size(); }
  void all_reduce_sum(const std::vector<at::Tensor>& tensors) override {
    const bool is_question = tensors[0].numel() == 1 && tensors[0].scalar_type() == at::kLong;
    if (is_question && fs::exists(ledger_) && verify_ledger(ledger_).charged_steps >= 2)
      at::Tensor(tensors[0]).fill_(1);
    ranks_->all_reduce_sum(tensors);
  }
  void reduce_slices(const std::vector<at::Tensor>& flat) override { ranks_->reduce_slices(flat); }
  void broadcast(const std::vector<at::Tensor>& tensors, int64_t from) override {
    ranks_->broadcast(tensors, from);
  }
  void broadcast(std::span<std::byte> bytes) override { ranks_->broadcast(bytes); }
  void barrier() override { ranks_->barrier(); }

 private:
  std::shared_ptr<Communicator> ranks_;
  fs::path ledger_;
};

TEST_F(RanksOfTraining, ASignalToOneStopsAll) {
  const auto errors = ThreadRanks(3).run([&](const std::shared_ptr<Communicator>& ranks) {
    const auto settings = config(ranks->leads() ? "run" : "of_followers");
    const auto signalled = std::make_shared<Signalled>(ranks, folder / "run/ledger.jsonl");
    if (ranks->rank() == 1)
      train(*settings, false, with_test_key(signalled));
    else
      train(*settings, false, with_test_key(ranks));
  });
  for (const std::string& message : messages(errors))
    EXPECT_THAT(message, HasSubstr("130 stopped after step 2"));
  EXPECT_TRUE(fs::exists(checkpoint_path("run", 2) / "DONE"));
  EXPECT_EQ(ledger("run").charged_steps, 2);
}

TEST_F(RanksOfTraining, AGeneratorThatBreaksCostsNoChargedStep) {
  const auto errors = ThreadRanks(2).run([&](const std::shared_ptr<Communicator>& ranks) {
    train(*config(ranks->leads() ? "run" : "of_followers",
                  gan({"gan.generator_learning_rate=1e38", "mechanism.steps=9"})),
          false, with_test_key(ranks));
  });
  const std::vector<std::string> texts = messages(errors);
  EXPECT_THAT(texts[0], HasSubstr("3 the generator broke in its step"));
  EXPECT_THAT(texts[1], HasSubstr("3 rank 0: the generator broke in its step"));
  const LedgerSummary summary = ledger("run");
  const auto newest = newest_checkpoint(folder / "run/private/checkpoints");
  ASSERT_TRUE(newest);
  EXPECT_GT(summary.charged_steps, 0);
  EXPECT_EQ(read_checkpoint(*newest).step, summary.charged_steps);
  train_on(3, "run", gan({"mechanism.steps=9"}), /*is_resumed=*/true, 6);
  EXPECT_EQ(ledger("run").charged_steps, 9);
}

TEST_F(RanksOfTraining, EveryRecordOfAStepIsOnOneRank) {
  const Settings changes = {"run.log_every=1", "mechanism.steps=8"};
  train_on(1, "alone", changes);
  for (const int64_t size : {2, 5}) {
    const std::string run = "of" + std::to_string(size);
    forget_uses();
    train_on(size, run, changes);
    EXPECT_EQ(batch_sizes(run), batch_sizes("alone"));
  }
}

}  // namespace
}  // namespace sfumato
