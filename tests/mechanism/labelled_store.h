#pragma once
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "sfumato/data/record_store.h"
#include "sfumato/data/record_store_writer.h"
#include "support/temp_folder.h"
#include "train/tiny_run.h"

namespace sfumato::test {

/// An image of a private set: tiny_image(number) in a class.
struct LabelledImage {
  int number, label;
};

/// The images 0 ... count - 1, in `classes` classes in turn.
inline std::vector<LabelledImage> labelled_images(int count, int classes) {
  std::vector<LabelledImage> images;
  for (int i = 0; i < count; ++i) images.push_back({i, i % classes});
  return images;
}

/// Tests of stages on small private sets of three classes.
class LabelledStores : public ::testing::Test {
 protected:
  static constexpr int64_t kClasses = 3;
  RecordStore store(const std::vector<LabelledImage>& images, int64_t classes = kClasses) {
    const auto path = folder / ("private" + std::to_string(++stores_));
    std::vector<std::string> names = {"across", "down", "none"};
    names.resize(static_cast<size_t>(classes));
    RecordStoreWriter writer(path, {8, 8, 1, classes, names, false, 1});
    for (const LabelledImage& each : images) writer.append(tiny_image(each.number), each.label);
    writer.finish({{"note", "made by a test"}});
    return RecordStore::open(path);
  }
  TempFolder folder;

 private:
  int stores_ = 0;
};

}  // namespace sfumato::test
