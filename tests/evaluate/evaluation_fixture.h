#pragma once
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "audit/small_images.h"
#include "sfumato/core/file.h"
#include "sfumato/evaluate/evaluation.h"
#include "sfumato/io/image_codec.h"
#include "sfumato/report/privacy_card.h"
#include "support/error_message.h"
#include "support/temp_folder.h"

namespace sfumato::test {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// Grey images of 8 x 8 pixels whose class is where they are light.
inline std::vector<Pixels> classed_images(int count, unsigned seed, int classes = 2) {
  std::vector<Pixels> images = random_images(count, seed);
  for (std::size_t i = 0; i < images.size(); ++i)
    for (std::size_t at = 0; at < 64; ++at) {
      const bool light = static_cast<int>(at / 32) == static_cast<int>(i) % classes;
      images[i][at] = static_cast<std::uint8_t>(images[i][at] / 4 + (light ? 150 : 20));
    }
  return images;
}

inline void write_picture(const fs::path& file, const Pixels& pixels, int side = 8,
                          int channels = 1) {
  fs::create_directories(file.parent_path());
  write_file_atomic(file, encode_png({side, side, channels, pixels}));
}

inline Json lineage_of(const std::vector<int64_t>& per_class) {
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
    write_store(folder_ / name, images, 8, classes);
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

  TempFolder folder_;
};

inline EvaluationOptions quick(std::vector<Metric> metrics) {
  EvaluationOptions options;
  options.networks = {"pixels"};
  options.metrics = std::move(metrics);
  options.classifier.epochs = 3;
  return options;
}

inline const Measurement& measured(const Evaluation& evaluation, const std::string& key) {
  for (const Measurement& one : evaluation.measurements)
    if (one.key == key) return one;
  throw std::runtime_error("not measured: " + key);
}

}  // namespace sfumato::test
