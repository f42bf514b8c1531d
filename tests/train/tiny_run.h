#pragma once
#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "sfumato/config/config.h"
#include "sfumato/core/file.h"
#include "sfumato/core/log.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/data/record_store_writer.h"
#include "sfumato/models/tensor_file.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/run/checkpoint.h"
#include "sfumato/train/trainer.h"
#include "support/temp_folder.h"

namespace sfumato::test {

constexpr int kTinyRecords = 40;

/// Pixels of record i, 8 x 8 grey: a bar whose direction is the label, and a little of i.
inline std::vector<std::uint8_t> tiny_image(int i) {
  std::vector<std::uint8_t> pixels(64);
  for (int y = 0; y < 8; ++y)
    for (int x = 0; x < 8; ++x) {
      const int along = i % 2 == 0 ? x : y;
      pixels[static_cast<std::size_t>(8 * y + x)] = static_cast<std::uint8_t>(
          (along / 2 == i % 4 ? 200 : 30) + (i * 13 + x * 5 + y * 3) % 50);
    }
  return pixels;
}

/// Records `indices` of the set above, label i % 2.
inline void write_tiny_store(const std::filesystem::path& path, const std::vector<int>& indices) {
  RecordStoreWriter writer(path, {8, 8, 1, 2, {"across", "down"}, false, 1});
  for (const int i : indices) writer.append(tiny_image(i), i % 2);
  writer.finish({{"note", "made by a test"}});
}

inline std::vector<int> first_records(int count) {
  std::vector<int> indices(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) indices[static_cast<std::size_t>(i)] = i;
  return indices;
}

/// A UNet of two levels and some twenty thousand parameters, with attention.
inline nlohmann::json tiny_network() {
  return {{"_class_name", "UNet2DModel"},
          {"sample_size", 8},
          {"in_channels", 1},
          {"out_channels", 1},
          {"block_out_channels", {8, 16}},
          {"layers_per_block", 1},
          {"down_block_types", {"DownBlock2D", "AttnDownBlock2D"}},
          {"up_block_types", {"AttnUpBlock2D", "UpBlock2D"}},
          {"attention_head_dim", 8},
          {"norm_num_groups", 4}};
}

/// What a checkpoint of a diffusion network holds.
struct SavedTensors {
  int64_t step = 0;
  NamedTensors model, ema, optimizer;
};

/// A store, a network and settings for runs of a second.
class TinyRun : public ::testing::Test {
 protected:
  TinyRun() {
    set_quiet(true);
    set_stop_requested(false);
    std::cerr.rdbuf(silence_.rdbuf());
    write_tiny_store(folder / "store", first_records(kTinyRecords));
    write_file_atomic(folder / "network.json", tiny_network().dump());
  }
  ~TinyRun() override {
    std::cerr.rdbuf(stderr_);
    set_stop_requested(false);
    set_quiet(false);
  }

  std::unique_ptr<Config> config(const std::string& run,
                                 const std::vector<std::string>& changes = {}) const {
    std::vector<std::string> overrides = {
        "run.dir=" + (folder / run).string(),
        "run.seed=3",
        "run.checkpoint_every=2",
        "run.keep_last=100",
        "data.store=" + (folder / "store").string(),
        "data.image_size=8",
        "data.channels=1",
        "data.num_classes=2",
        "model.config=" + (folder / "network.json").string(),
        "mechanism.sample_rate=0.25",
        "mechanism.expected_batch_size=10",
        "mechanism.steps=6",
        "mechanism.delta=1e-3",
        "performance.physical_batch=4",
        "performance.threads=1",
    };
    const auto changes_family = [](const std::string& change) {
      return change.starts_with("model.family=");
    };
    if (std::none_of(changes.begin(), changes.end(), changes_family))
      for (const char* setting :
           {"diffusion.draws=2", "diffusion.label_dropout=0.1", "diffusion.horizontal_flip=true"})
        overrides.emplace_back(setting);
    overrides.insert(overrides.end(), changes.begin(), changes.end());
    const bool given = std::any_of(changes.begin(), changes.end(), [](const std::string& change) {
      return change.starts_with("mechanism.noise_multiplier") ||
             change.starts_with("mechanism.target_epsilon") || change == "privacy.enabled=false";
    });
    if (!given) overrides.push_back("mechanism.noise_multiplier=1.0");
    return load_config(std::nullopt, overrides);
  }

  TrainResult start(const std::string& run, const std::vector<std::string>& changes = {}) const {
    return train(*config(run, changes), /*resume=*/false);
  }
  TrainResult resume(const std::string& run, const std::vector<std::string>& changes = {}) const {
    return train(*config(run, changes), /*resume=*/true);
  }

  std::filesystem::path checkpoint_path(const std::string& run, int step) const {
    std::string digits = std::to_string(step);
    digits.insert(0, 6 - digits.size(), '0');
    return folder / run / "private/checkpoints" / ("step_" + digits);
  }
  SavedTensors checkpoint(const std::string& run, int step) const {
    const Checkpoint saved = read_checkpoint(checkpoint_path(run, step));
    return {saved.step, to_tensors(saved.group("model")), to_tensors(saved.group("ema")),
            to_tensors(saved.group("optimizer"))};
  }
  LedgerSummary ledger(const std::string& run) const {
    return verify_ledger(folder / run / "ledger.jsonl");
  }

  /// The run as a crash after `step` steps would have left it. The record store forgets what it
  /// knows of later steps, which a crash would not have told it.
  void copy_run(const std::string& from, const std::string& to, int step) const {
    std::filesystem::copy(folder / from, folder / to, std::filesystem::copy_options::recursive);
    std::filesystem::remove_all(folder / to / "release");
    forget_uses();
    for (int later = step + 1; later <= 100; ++later)
      std::filesystem::remove_all(checkpoint_path(to, later));
  }

  void forget_uses() const { std::filesystem::remove_all(folder / "store/uses"); }

  static std::vector<std::string> lines_of(const std::filesystem::path& path) {
    std::istringstream text(read_file(path));
    std::vector<std::string> lines;
    for (std::string line; std::getline(text, line);) lines.push_back(line);
    return lines;
  }
  static void write_lines(const std::filesystem::path& path,
                          const std::vector<std::string>& lines) {
    std::string text;
    for (const std::string& line : lines) text += line + "\n";
    write_file_atomic(path, text);
  }

  TempFolder folder;

 private:
  std::ostringstream silence_;
  std::streambuf* stderr_ = std::cerr.rdbuf();
};

inline void expect_same(const NamedTensors& a, const NamedTensors& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].first, b[i].first);
    EXPECT_EQ(a[i].second.scalar_type(), b[i].second.scalar_type()) << a[i].first;
    EXPECT_TRUE(a[i].second.equal(b[i].second)) << a[i].first;
  }
}

/// How many tensors of the two lists differ.
inline int differing(const NamedTensors& a, const NamedTensors& b) {
  int count = 0;
  for (std::size_t i = 0; i < a.size(); ++i) count += a[i].second.equal(b[i].second) ? 0 : 1;
  return count;
}

}  // namespace sfumato::test
