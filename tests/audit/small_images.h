#pragma once
#include <cstdint>
#include <filesystem>
#include <random>
#include <vector>

#include "sfumato/data/record_store_writer.h"

namespace sfumato::test {

using Pixels = std::vector<std::uint8_t>;

/// Grey images of `side` x `side`: squares of 2 x 2 pixels, each of its own random grey.
inline std::vector<Pixels> random_images(int count, unsigned seed, int side = 8) {
  std::mt19937_64 random(seed);
  std::vector<Pixels> images;
  for (int i = 0; i < count; ++i) {
    Pixels image(static_cast<std::size_t>(side * side));
    for (int y = 0; y < side; y += 2)
      for (int x = 0; x < side; x += 2) {
        const auto grey = static_cast<std::uint8_t>(random() & 255);
        for (const int at :
             {y * side + x, y * side + x + 1, (y + 1) * side + x, (y + 1) * side + x + 1})
          image[static_cast<std::size_t>(at)] = grey;
      }
    images.push_back(image);
  }
  return images;
}

/// A store of these images; label i % `classes`, or none.
inline RecordStore write_store(const std::filesystem::path& path, const std::vector<Pixels>& images,
                               int side = 8, int classes = 0) {
  StoreLayout layout{side, side, 1, classes, {}, false, 1};
  for (int c = 0; c < classes; ++c) layout.class_names.push_back(std::to_string(c));
  RecordStoreWriter writer(path, layout);
  for (std::size_t i = 0; i < images.size(); ++i)
    writer.append(images[i], classes > 0 ? static_cast<int>(i) % classes : 0);
  writer.finish();
  return RecordStore::open(path);
}

}  // namespace sfumato::test
