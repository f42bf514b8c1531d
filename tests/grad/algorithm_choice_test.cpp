#include <gtest/gtest.h>

#include "sfumato/grad/gradient_engine.h"

namespace sfumato {
namespace {

LayerWork linear_work(int64_t tokens, int64_t in, int64_t out) {
  return {"linear.weight", 8, tokens, tokens, in, in, out, true, {}};
}

LayerWork conv_work(int64_t side, int64_t in, int64_t out) {
  return {"conv.weight", 8, side * side, (side + 2) * (side + 2), 9 * in, in, out, true, {}};
}

Algorithm automatic(const LayerWork& work) {
  return choose_algorithm(work, AlgorithmPolicy::kAuto).algorithm;
}

TEST(AlgorithmChoice, TakesTheCheaperOne) {
  // One token and a large matrix: its outer product is not worth writing down.
  EXPECT_EQ(automatic(linear_work(1, 1024, 1024)), Algorithm::kGram);
  EXPECT_EQ(automatic(conv_work(2, 512, 512)), Algorithm::kGram);
  // Many positions and a small kernel: T x T matrices would cost most.
  EXPECT_EQ(automatic(conv_work(32, 3, 16)), Algorithm::kKeep);
  EXPECT_EQ(automatic(linear_work(1024, 8, 8)), Algorithm::kKeep);
}

TEST(AlgorithmChoice, FollowsItsOwnEstimates) {
  for (const int64_t tokens : {1, 4, 16, 64, 256, 1024})
    for (const int64_t width : {8, 64, 512}) {
      const LayerChoice choice =
          choose_algorithm(linear_work(tokens, width, width), AlgorithmPolicy::kAuto);
      EXPECT_EQ(choice.algorithm == Algorithm::kGram, choice.gram_seconds < choice.keep_seconds);
      EXPECT_GT(choice.keep_seconds, 0);
      EXPECT_GT(choice.gram_seconds, 0);
    }
}

TEST(AlgorithmChoice, CountsTheBytesHeldUntilTheClip) {
  const LayerChoice choice = choose_algorithm(linear_work(5, 30, 20), AlgorithmPolicy::kAuto);
  EXPECT_EQ(choice.keep_bytes, 4.0 * 8 * 30 * 20);        // B gradients
  EXPECT_EQ(choice.gram_bytes, 4.0 * 8 * 5 * (30 + 20));  // B T inputs and output gradients
  EXPECT_EQ(choice.work.layer, "linear.weight");
}

TEST(AlgorithmChoice, APolicyOverridesTheEstimate) {
  const LayerWork for_gram = linear_work(1, 1024, 1024), for_keep = conv_work(32, 3, 16);
  EXPECT_EQ(choose_algorithm(for_gram, AlgorithmPolicy::kKeep).algorithm, Algorithm::kKeep);
  EXPECT_EQ(choose_algorithm(for_keep, AlgorithmPolicy::kGram).algorithm, Algorithm::kGram);
}

TEST(AlgorithmChoice, GroupedConvolutionsAreAlwaysKept) {
  LayerWork grouped = linear_work(1, 1024, 1024);
  grouped.gram_possible = false;
  for (const AlgorithmPolicy policy :
       {AlgorithmPolicy::kAuto, AlgorithmPolicy::kKeep, AlgorithmPolicy::kGram})
    EXPECT_EQ(choose_algorithm(grouped, policy).algorithm, Algorithm::kKeep);
}

}  // namespace
}  // namespace sfumato
