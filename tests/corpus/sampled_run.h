#pragma once
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "sfumato/config/config.h"
#include "sfumato/core/file.h"
#include "sfumato/core/sha256.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/corpus/generate_corpus.h"
#include "sfumato/corpus/sampling_model.h"
#include "sfumato/generate/diffusion/solver.h"
#include "sfumato/io/json_file.h"
#include "sfumato/models/checkpoint_io.h"
#include "sfumato/report/privacy_card.h"
#include "support/temp_folder.h"

namespace sfumato::test {

inline UNet2DConfig small_sampled_network(std::optional<int64_t> classes) {
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
class SampledRun : public ::testing::Test {
 protected:
  SampledRun() {
    at::set_num_threads(1);  // the networks are so small that threads only wait for one another
    make_run(4);
  }
  ~SampledRun() override { set_stop_requested(false); }

  void make_run(std::optional<int64_t> rows) {
    UNet2D network(small_sampled_network(rows));
    network.name_parameters();
    network.initialise(3);
    std::filesystem::remove_all(run());
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

  std::filesystem::path run() const { return temp_ / "run"; }

  /// Puts a label histogram beside the weights, and its stage on their card.
  void release_histogram(const std::string& bytes) const {
    const std::filesystem::path path = run() / "release/privacy_card.json";
    std::ofstream(run() / "release/label_histogram.json") << bytes;
    auto card = read_privacy_card(path);
    card["stages"] = {{{"name", "label_histogram"}, {"result_sha256", sha256_hex(bytes)}}};
    write_json_atomic(path, card);
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

  TempFolder temp_;
  int64_t last_drawn_ = 0;
};

/// In grey levels; 1000 where they are not as many.
inline int largest_difference(const std::vector<Image>& a, const std::vector<Image>& b) {
  int largest = a.size() == b.size() ? 0 : 1000;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    for (std::size_t p = 0; p < a[i].pixels.size(); ++p)
      largest = std::max(largest, std::abs(a[i].pixels[p] - b[i].pixels[p]));
  return largest;
}

}  // namespace sfumato::test
