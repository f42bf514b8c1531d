#pragma once
// Runs of the family gan, of a second each.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "sfumato/io/json_file.h"
#include "sfumato/run/run_verification.h"
#include "train/tiny_run.h"

namespace sfumato::test {

inline constexpr const char* kGanGroups[] = {
    "model", "ema", "discriminator", "generator_optimizer", "optimizer", "schedule"};

class GanFamily : public TinyRun {
 protected:
  GanFamily() {
    write("generator", generator());
    write("discriminator", discriminator());
  }
  static nlohmann::json generator() {
    return {{"_class_name", "DCGANGenerator"},
            {"sample_size", 8},
            {"out_channels", 1},
            {"latent_size", 4},
            {"block_out_channels", {8, 6}},
            {"num_class_embeds", 2}};
  }
  static nlohmann::json discriminator() {
    return {{"_class_name", "DCGANDiscriminator"},
            {"sample_size", 8},
            {"in_channels", 1},
            {"block_out_channels", {6, 8}},
            {"num_class_embeds", 2}};
  }
  void write(const std::string& name, const nlohmann::json& description) const {
    write_file_atomic(folder / (name + ".json"), description.dump());
  }
  std::vector<std::string> gan(std::vector<std::string> more = {}) const {
    more.insert(
        more.begin(),
        {"model.family=gan", "model.config=", "warmup.steps=0", "gan.fakes=2",
         "gan.discriminator_steps=2", "gan.generator_batch=8", "gan.approximated_r1=1",
         "gan.horizontal_flip=true", "gan.generator_config=" + (folder / "generator.json").string(),
         "gan.discriminator_config=" + (folder / "discriminator.json").string()});
    return more;
  }
  std::vector<std::string> problems(const std::string& run) const {
    RunVerificationOptions options;
    options.run = folder / run;
    return verify_run(options).problems();
  }
  nlohmann::json card(const std::string& run) const {
    return read_json(folder / run / "release/privacy_card.json");
  }
  void expect_same_checkpoints(const std::string& a, const std::string& b, int step) const {
    for (const char* group : kGanGroups) {
      const std::string file = std::string(group) + ".safetensors";
      EXPECT_EQ(read_file(checkpoint_path(a, step) / file),
                read_file(checkpoint_path(b, step) / file))
          << group;
    }
  }
};

}  // namespace sfumato::test
