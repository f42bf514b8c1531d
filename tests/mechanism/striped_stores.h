#pragma once
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "sfumato/data/record_store_writer.h"
#include "support/temp_folder.h"
#include "train/tiny_run.h"

namespace sfumato::test {

/// Stores of images first ... end - 1 of the tiny set, of which the third class has none.
class StripedStores : public ::testing::Test {
 protected:
  RecordStore store(int first, int end) {
    const auto path = folder / fmt::format("store{}_{}", first, end);
    if (!std::filesystem::exists(path)) {
      RecordStoreWriter writer(path, {8, 8, 1, 3, {"across", "down", "none"}, false, 1});
      for (int i = first; i < end; ++i) writer.append(tiny_image(i), i % 2);
      writer.finish({{"note", "made by a test"}});
    }
    return RecordStore::open(path);
  }
  TempFolder folder;
};

}  // namespace sfumato::test
