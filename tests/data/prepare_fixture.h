#pragma once
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "io/image_bytes.h"
#include "io/safetensors_bytes.h"
#include "sfumato/core/error.h"
#include "sfumato/data/prepare.h"
#include "sfumato/data/record_store.h"
#include "sfumato/io/image_codec.h"
#include "support/temp_folder.h"

namespace sfumato::test {

/// A 4 x 4 grey PNG of one value.
inline std::string flat_png(int value) {
  return make_png(4, 4, 8, 0,
                  std::vector<std::string>(4, std::string(4, static_cast<char>(value))));
}

class Prepare : public ::testing::Test {
 protected:
  Prepare() {
    options.source = folder / "source";
    options.store = folder / "store";
    options.image_size = 4;
    options.channels = 1;
    options.threads = 2;
    options.key = std::string(32, 'k');
  }

  void put_image(const std::string& name, const std::string& bytes) {
    const auto path = options.source / name;
    std::filesystem::create_directories(path.parent_path());
    put(path, bytes);
  }

  /// First value of each record, in order: enough for flat images.
  std::vector<int> values() const {
    const RecordStore store = RecordStore::open(options.store);
    std::vector<int> result;
    for (std::int64_t i = 0; i < store.count(); ++i) result.push_back(store.pixels(i)[0]);
    return result;
  }
  std::vector<int> labels() const {
    const RecordStore store = RecordStore::open(options.store);
    std::vector<int> result;
    for (std::int64_t i = 0; i < store.count(); ++i) result.push_back(store.label(i));
    return result;
  }

  /// Prepares anew and returns the report.
  PrepareReport again() {
    std::filesystem::remove_all(options.store);
    return prepare(options);
  }

  std::string data_error() {
    const std::string message = message_of<DataError>([&] { prepare(options); });
    EXPECT_FALSE(std::filesystem::exists(options.store)) << "a half store was left";
    EXPECT_FALSE(std::filesystem::exists(folder / ".store.partial")) << "a partial store was left";
    return message;
  }

  TempFolder folder;
  PrepareOptions options;
};

}  // namespace sfumato::test
