#include "sfumato/config/starter.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "sfumato/config/config.h"

namespace sfumato {
namespace {

/// "  key: value" as YAML that reads back, with a comment.
std::string line(const SettingBase& setting, const std::string& comment = {}) {
  const std::string text = fmt::format("  {}: {}", setting.name(), setting.value_yaml());
  return comment.empty() ? text + "\n" : fmt::format("{:<36} # {}\n", text, comment);
}

std::string data_lines(const StarterFacts& facts, const Config& c) {
  std::string text = "data:\n";
  text += line(c.data.source) + line(c.data.store, "private, as the images are");
  text += line(c.data.image_size, "images are centre-cropped and resized to this");
  text += line(c.data.channels);
  if (!facts.class_names.empty())
    text += line(c.data.class_names, "public: also classes of which no image is here");
  else
    text += line(c.data.num_classes, facts.num_classes > 0 ? "public" : "0: without classes");
  if (facts.merge_folders) text += line(c.data.merge_folders, "folders are no classes");
  if (facts.users.empty())
    return text +
           "  # One image is protected, and not one person: where somebody may have several, name "
           "a\n"
           "  # CSV with columns 'file,user' in users, and how many of each are kept in "
           "records_per_user.\n";
  return text + line(c.data.users, "whose each image is: 'file,user'") +
         line(c.data.records_per_user, "this many of each person are kept");
}

std::string mechanism_lines(const StarterFacts& facts, const Config& c) {
  const MechanismSettings& m = c.mechanism;
  return "mechanism:                           # decides epsilon, and nothing else does\n" +
         line(m.sample_rate, fmt::format("expected_batch_size / about {} images", facts.records)) +
         line(m.expected_batch_size) + line(m.steps, "`sfumato plan` shows what others would do") +
         line(m.clip_norm_l2) + line(m.target_epsilon, "smaller protects more") +
         line(m.delta, "well below 1 / number of images") + line(m.adjacency);
}

}  // namespace

std::int64_t rounded_count(std::int64_t count) {
  if (count < 10) return count;
  const double unit = std::pow(10, std::floor(std::log10(static_cast<double>(count))));
  return std::llround(static_cast<double>(count) / unit) * std::llround(unit);
}

std::int64_t proposed_size(std::int64_t smallest_side) {
  if (smallest_side == 28) return 28;
  std::int64_t size = 16;
  while (size < 64 && 2 * size <= smallest_side) size *= 2;
  return size;
}

std::string starter_configuration(const StarterFacts& facts) {
  Config c;
  const auto records = static_cast<double>(facts.records);
  const double batch =
      std::max(1.0, std::floor(std::min(std::max(64.0, records / 20), records / 5)));
  c.run.dir.set("runs/" + facts.name);
  c.data.source.set(facts.source);
  c.data.store.set("stores/" + facts.name);
  c.data.image_size.set(facts.image_size);
  c.data.channels.set(facts.channels);
  c.data.class_names.set(facts.class_names);
  c.data.num_classes.set(facts.num_classes);
  c.data.merge_folders.set(facts.merge_folders);
  c.data.users.set(facts.users);
  c.data.records_per_user.set(facts.records_per_user);
  c.model.init.set(facts.init);
  c.model.config.set(facts.network);
  c.mechanism.sample_rate.set(std::min(1.0, batch / records));
  c.mechanism.expected_batch_size.set(batch);
  c.mechanism.steps.set(500);
  c.mechanism.target_epsilon.set(facts.target_epsilon);
  c.mechanism.delta.set(std::pow(10, -1 - std::ceil(std::log10(std::max(2.0, records)))));
  const bool has_classes = facts.num_classes > 0 || !facts.class_names.empty();
  c.diffusion.draws.set(4);
  c.diffusion.label_dropout.set(has_classes ? 0.1 : 0);
  c.optimizer.learning_rate.set(1e-3);
  c.optimizer.ema_decay.set(0.99);
  std::string text =
      "# Written by `sfumato init`. Every number is a public fact on your word: what you would "
      "tell\n"
      "# anyone about the set, not a count that follows from single images. `sfumato plan "
      "--config` "
      "this\n# file before anything is spent; configs/base.yaml explains every setting.\n";
  text += "run:\n" + line(c.run.dir) + "\n" + data_lines(facts, c) + "\nmodel:\n";
  text += facts.init.empty()
              ? line(c.model.config, "from scratch; public weights (init) make pictures far better")
              : line(c.model.init, "trained on public images alone");
  text += "\n" + mechanism_lines(facts, c) + "\ndiffusion:\n";
  text += line(c.diffusion.draws, "noise draws per image: time, no privacy") +
          line(c.diffusion.label_dropout) +
          line(c.diffusion.horizontal_flip, "true where left and right do not matter");
  if (facts.init.empty()) {
    c.diffusion.prediction.set(Prediction::kVPrediction);
    c.diffusion.schedule.set(BetaSchedule::kSquaredCosCapV2);
    text += line(c.diffusion.prediction) + line(c.diffusion.schedule);
  }
  return text + "\noptimizer:\n" + line(c.optimizer.learning_rate) + line(c.optimizer.ema_decay);
}

std::string starter_network(const StarterFacts& facts) {
  return fmt::format(
      "{{\n  \"_class_name\": \"UNet2DModel\",\n  \"sample_size\": {0},\n  \"in_channels\": {1},\n"
      "  \"out_channels\": {1},\n  \"block_out_channels\": [32, 64, 64],\n"
      "  \"layers_per_block\": 1,\n"
      "  \"down_block_types\": [\"DownBlock2D\", \"DownBlock2D\", \"AttnDownBlock2D\"],\n"
      "  \"up_block_types\": [\"AttnUpBlock2D\", \"UpBlock2D\", \"UpBlock2D\"],\n"
      "  \"attention_head_dim\": 8,\n  \"norm_num_groups\": 8\n}}\n",
      facts.image_size, facts.channels);
}

}  // namespace sfumato
