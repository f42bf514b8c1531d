// What an example is made of depends on the example: not on its place, its neighbours, or the
// batch.
#include "sfumato/train/batch_loader.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "sfumato/core/error.h"
#include "sfumato/data/batch.h"
#include "sfumato/generate/diffusion/draws.h"
#include "train/tiny_run.h"

namespace sfumato {
namespace {

using namespace test;

DiffusionOptions options() {
  DiffusionOptions options;
  options.draws = 3;
  options.num_classes = 2;
  options.label_dropout = 0.4;
  options.horizontal_flip = true;
  options.shift_pixels = 2;
  return options;
}

/// A batch and what was drawn for it.
struct PhysicalBatch {
  at::Tensor images, mask;
  DrawnNoise drawn;
  int64_t examples = 0;
};

PhysicalBatch drawn_for(const ExampleBatch& examples, uint64_t seed, int64_t step,
                        const DiffusionOptions& options) {
  const DrawnNoise drawn = draw_noise(seed, static_cast<uint64_t>(step), examples.keys,
                                      examples.shape, examples.labels, options);
  return {draw_images(examples, drawn), examples.mask, drawn, examples.size()};
}

class BatchLoader : public TinyRun {
 protected:
  BatchLoader() : store(RecordStore::open(folder / "store")) {}

  PhysicalBatch load(const std::vector<int64_t>& records, int64_t physical, uint64_t seed = 1,
                     int64_t step = 5) const {
    return drawn_for(load_examples(store, records, physical), seed, step, options());
  }

  RecordStore store;
};

/// Everything that example `row` of the batch is made of.
std::vector<at::Tensor> example_of(const PhysicalBatch& batch, int64_t row) {
  return {batch.images[row],       batch.drawn.eps[row],   batch.drawn.timesteps[row],
          batch.drawn.labels[row], batch.drawn.flips[row], batch.drawn.shifts[row]};
}

bool same_example(const PhysicalBatch& a, int64_t row_a, const PhysicalBatch& b, int64_t row_b) {
  const auto x = example_of(a, row_a), y = example_of(b, row_b);
  return std::equal(x.begin(), x.end(), y.begin(),
                    [](const at::Tensor& s, const at::Tensor& t) { return s.equal(t); });
}

TEST_F(BatchLoader, ARecordDoesNotDependOnTheBatchAroundIt) {
  const PhysicalBatch alone = load({17}, 1);
  EXPECT_TRUE(same_example(alone, 0, load({17}, 6), 0));
  EXPECT_TRUE(same_example(alone, 0, load({2, 9, 17, 30}, 4), 2));
  EXPECT_TRUE(same_example(alone, 0, load({17, 18}, 2), 0));
  EXPECT_FALSE(same_example(alone, 0, load({16}, 1), 0));
}

TEST_F(BatchLoader, ARecordDoesNotDependOnItsPlaceInTheStore) {
  // The neighbouring data set: record 3 is gone and everything after it moved up.
  std::vector<int> indices = first_records(kTinyRecords);
  indices.erase(indices.begin() + 3);
  write_tiny_store(folder / "neighbour", indices);
  const RecordStore neighbour = RecordStore::open(folder / "neighbour");
  const PhysicalBatch here = load({17, 20}, 2);
  const int64_t moved[] = {16, 19};
  const PhysicalBatch there = drawn_for(load_examples(neighbour, moved, 2), 1, 5, options());
  EXPECT_TRUE(same_example(here, 0, there, 0));
  EXPECT_TRUE(same_example(here, 1, there, 1));
}

TEST_F(BatchLoader, ThePresenceOfARecordChangesNoOther) {
  const PhysicalBatch with = load({4, 8, 15, 16}, 4), without = load({4, 8, 16}, 4);
  EXPECT_TRUE(same_example(with, 0, without, 0));
  EXPECT_TRUE(same_example(with, 1, without, 1));
  EXPECT_TRUE(same_example(with, 3, without, 2));
}

TEST_F(BatchLoader, SeedAndStepGiveOtherDraws) {
  const PhysicalBatch batch = load({17}, 1);
  EXPECT_TRUE(same_example(batch, 0, load({17}, 1), 0));
  EXPECT_FALSE(batch.drawn.eps.equal(load({17}, 1, 2, 5).drawn.eps));
  EXPECT_FALSE(batch.drawn.eps.equal(load({17}, 1, 1, 6).drawn.eps));
}

TEST_F(BatchLoader, TheSamePixelsWithAnotherLabelAreAnotherExample) {
  RecordStoreWriter writer(folder / "twins", {8, 8, 1, 2, {"across", "down"}, false, 1});
  writer.append(tiny_image(0), 0);
  writer.append(tiny_image(0), 1);
  writer.finish({});
  const RecordStore twins = RecordStore::open(folder / "twins");
  const int64_t both[] = {0, 1};
  const PhysicalBatch batch = drawn_for(load_examples(twins, both, 2), 1, 5, options());
  EXPECT_FALSE(batch.drawn.eps[0].equal(batch.drawn.eps[1]));
}

TEST_F(BatchLoader, TheShapeIsFixedAndTheMaskSaysWhatIsReal) {
  for (const std::vector<int64_t>& records :
       {std::vector<int64_t>{}, {3}, {3, 5, 7}, {3, 5, 7, 8, 9}}) {
    const PhysicalBatch batch = load(records, 5);
    EXPECT_EQ(batch.examples, 5);
    EXPECT_EQ(batch.images.sizes(), (std::vector<int64_t>{5, 3, 1, 8, 8}));
    EXPECT_EQ(batch.drawn.eps.sizes(), (std::vector<int64_t>{5, 3, 1, 8, 8}));
    EXPECT_EQ(batch.drawn.timesteps.sizes(), (std::vector<int64_t>{5, 3}));
    ASSERT_EQ(batch.mask.sizes(), (std::vector<int64_t>{5}));
    for (int64_t row = 0; row < 5; ++row)
      EXPECT_EQ(batch.mask[row].item<float>(), row < std::ssize(records) ? 1.0f : 0.0f);
  }
  EXPECT_THROW(load({1, 2, 3}, 2), UsageError);
}

TEST_F(BatchLoader, ImagesAreTheRecordsBetweenMinusOneAndOne) {
  DiffusionOptions plain;
  plain.num_classes = 2;
  const int64_t records[] = {5, 12};
  const PhysicalBatch batch = drawn_for(load_examples(store, records, 2), 1, 5, plain);
  ASSERT_EQ(batch.images.sizes(), (std::vector<int64_t>{2, 1, 8, 8})) << "no copy for each draw";
  for (int64_t row = 0; row < 2; ++row) {
    const std::vector<std::uint8_t> pixels = tiny_image(static_cast<int>(records[row]));
    for (int64_t i = 0; i < 64; ++i)
      EXPECT_FLOAT_EQ(batch.images[row].view({-1})[i].item<float>(),
                      pixels[static_cast<std::size_t>(i)] / 127.5f - 1.0f);
    EXPECT_EQ(batch.drawn.labels[row][0].item<int64_t>(), records[row] % 2);
  }
}

TEST_F(BatchLoader, EveryDrawIsAugmentedByItsOwnFlipAndShift) {
  const PhysicalBatch batch = load({5, 12, 33, 34}, 4);
  const int64_t records[] = {5, 12, 33, 34};
  int flipped = 0, shifted = 0;
  for (int64_t row = 0; row < 4; ++row)
    for (int64_t k = 0; k < 3; ++k) {
      const bool flip = batch.drawn.flips[row][k].item<bool>();
      const int64_t dx = batch.drawn.shifts[row][k][0].item<int64_t>();
      const int64_t dy = batch.drawn.shifts[row][k][1].item<int64_t>();
      EXPECT_LE(std::max(std::abs(dx), std::abs(dy)), 2);
      flipped += flip ? 1 : 0;
      shifted += dx != 0 || dy != 0 ? 1 : 0;
      const std::vector<std::uint8_t> pixels = tiny_image(static_cast<int>(records[row]));
      for (int64_t y = 0; y < 8; ++y)
        for (int64_t x = 0; x < 8; ++x) {
          const int64_t from_y = std::clamp<int64_t>(y - dy, 0, 7);
          int64_t from_x = std::clamp<int64_t>(x - dx, 0, 7);
          if (flip) from_x = 7 - from_x;
          EXPECT_FLOAT_EQ(batch.images[row][k][0][y][x].item<float>(),
                          pixels[static_cast<std::size_t>(8 * from_y + from_x)] / 127.5f - 1.0f);
        }
    }
  EXPECT_GT(flipped, 0);
  EXPECT_LT(flipped, 12);
  EXPECT_GT(shifted, 6);
}

TEST_F(BatchLoader, SyntheticExamplesFollowTheirKeys) {
  const uint64_t keys[] = {7, 8, 7};
  const PhysicalBatch batch = drawn_for(synthetic_examples({1, 8, 8}, keys), 0, 0, options());
  EXPECT_EQ(batch.examples, 3);
  EXPECT_TRUE(batch.images[0].equal(batch.images[2]));
  EXPECT_TRUE(batch.drawn.eps[0].equal(batch.drawn.eps[2]));
  EXPECT_FALSE(batch.images[0].equal(batch.images[1]));
  EXPECT_EQ(batch.mask.sum().item<float>(), 3.0f);
}

}  // namespace
}  // namespace sfumato
