#include "sfumato/bench/step_projection.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/linear_weight_grad.h"
#include "sfumato/bench/layer_list.h"
#include "sfumato/core/error.h"

namespace sfumato {
namespace {

/// A product of 64 tokens, 256 -> 512, per example.
LayerWork layer() {
  LayerWork work;
  work.tokens = work.input_tokens = 64;
  work.fan_in = work.input_channels = 256;
  work.fan_out = 512;
  return work;
}

/// All fractions 1, no launches: what remains is arithmetic.
ProjectionAssumptions ideal() {
  ProjectionAssumptions a;
  a.matrix_fraction = a.weight_gradient_fraction = a.memory_fraction = a.update_fraction = 1;
  a.full_width = 1;
  a.activation_passes = 0;
  a.launch_seconds = 0;
  return a;
}

const ProjectedTerm& term(const StepProjection& projection, const std::string& name) {
  for (const ProjectedTerm& each : projection.terms)
    if (each.name == name) return each;
  throw std::runtime_error("no term " + name);
}

constexpr double kWeights = 256 * 512;
constexpr int64_t kExamples = 4;
constexpr double kFlops = 2.0 * 4 * 64 * 256 * 512;

TEST(StepProjection, ByHandWhereOperationsBind) {
  const GpuLimits gpu{"slow", 1e6, 0, 0, 1e15};
  const StepProjection p = project_step({layer()}, kWeights, kExamples, 1, gpu, ideal());
  EXPECT_DOUBLE_EQ(p.forward_flops, kFlops);
  EXPECT_NEAR(p.plain_seconds, 3 * kFlops / 1e6, 1e-6);
  EXPECT_NEAR(p.private_seconds, 3 * kFlops / 1e6, 1e-6);
  ProjectionAssumptions half = ideal();
  half.weight_gradient_fraction = 0.5;
  EXPECT_NEAR(project_step({layer()}, kWeights, kExamples, 1, gpu, half).time_ratio(), 4.0 / 3,
              1e-9);
  half.full_width = 1024;  // 512 outputs fill half of it
  EXPECT_NEAR(project_step({layer()}, kWeights, kExamples, 1, gpu, half).plain_seconds,
              6 * kFlops / 1e6, 1e-5);
}

TEST(StepProjection, ByHandWhereBytesBind) {
  const GpuLimits gpu{"narrow", 1e30, 0, 0, 1};
  const StepProjection p = project_step({layer()}, kWeights, kExamples, 1, gpu, ideal());
  const double ends = 2 * (4.0 * 64 * 256 + 4.0 * 64 * 512), weights = kWeights;
  EXPECT_DOUBLE_EQ(term(p, "forward").plain, ends + 2 * weights);
  EXPECT_DOUBLE_EQ(term(p, "weight gradients").plain, ends + 2 * weights);
  EXPECT_DOUBLE_EQ(term(p, "weight gradients").priv, ends + 2 * 4 * weights);
  EXPECT_DOUBLE_EQ(term(p, "gradient to float32").plain, 18 * weights);
  EXPECT_DOUBLE_EQ(term(p, "gradient to float32").priv, 0);
  EXPECT_DOUBLE_EQ(term(p, "clipped sum").priv, (2 * 4 + 8) * weights);
  EXPECT_DOUBLE_EQ(term(p, "weights to bf16").plain, 6 * weights);
  EXPECT_DOUBLE_EQ(term(p, "exact sum").plain, 0);
  EXPECT_DOUBLE_EQ(term(p, "exact sum").priv, (4 + 8 + 8 + 4 + 8 + 4 + 8) * weights);
  EXPECT_DOUBLE_EQ(term(p, "update").plain, 32 * weights);
  EXPECT_DOUBLE_EQ(term(p, "update").priv, 32 * weights);
  double plain = 0, priv = 0;
  for (const ProjectedTerm& each : p.terms) {
    plain += each.plain;
    priv += each.priv;
  }
  EXPECT_DOUBLE_EQ(p.plain_seconds, plain);
  EXPECT_DOUBLE_EQ(p.private_seconds, priv);
}

TEST(StepProjection, PassesAndLaunches) {
  ProjectionAssumptions a = ideal();
  a.activation_passes = 3;
  a.launch_seconds = 1;
  a.launches_per_layer = 5;
  a.more_launches_per_layer = 2;
  const GpuLimits gpu{"narrow", 1e30, 0, 0, 1};
  const StepProjection p = project_step({layer(), layer()}, 2 * kWeights, kExamples, 1, gpu, a);
  EXPECT_DOUBLE_EQ(term(p, "norms, activations").priv, 2 * 3 * 2 * 4.0 * 64 * 256);
  EXPECT_DOUBLE_EQ(term(p, "launches").plain, 2 * 5);
  EXPECT_DOUBLE_EQ(term(p, "launches").priv, 2 * 5 + 2 * 2 + 6);
}

TEST(StepProjection, MemoryIsThePeakOfTheWalkBack) {
  const GpuLimits gpu{"any", 1, 0, 0, 1};
  // Two layers: one with large activations first, one with few tokens second.
  LayerWork wide = layer(), narrow = layer();
  wide.tokens = wide.input_tokens = 4096;
  narrow.tokens = narrow.input_tokens = 1;
  const StepProjection p = project_step({wide, narrow}, 2 * kWeights, kExamples, 1, gpu, ideal());
  const double state = 18 * 2 * kWeights;
  const double a_wide = 2 * 2 * 4.0 * 4096 * 256, a_narrow = 2 * 2 * 4.0 * 256;
  const double kept = 2 * 4 * kWeights;
  EXPECT_DOUBLE_EQ(p.plain_bytes, state + a_wide + a_narrow);
  // At the first layer both gradients are kept and the first layer's activations are still held.
  const LinearShape shape = linear_shape_of(wide, kExamples);
  const auto workspace = static_cast<double>(linear_weight_grad_workspace_bytes(shape));
  const double integers = 8 * 2 * kWeights;
  EXPECT_DOUBLE_EQ(p.private_bytes, state + integers + a_wide + 2 * kept + workspace);
  EXPECT_DOUBLE_EQ(per_draw_engine_bytes({wide, narrow}, 2 * kWeights, kExamples, 8, ideal()),
                   16 * 2 * kWeights + 4 * 2 * kWeights * 32 + a_wide + a_narrow);
}

TEST(StepProjection, TheFractionThatIsNeededIsTheSmallest) {
  const GpuLimits gpu{"slow", 1e6, 0, 0, 1e15};
  // (2 + 1 / f) / 3 = 1.1
  EXPECT_NEAR(fraction_needed({layer()}, kWeights, kExamples, 1, gpu, ideal(), 1.1), 1 / 1.3, 1e-6);
  const GpuLimits narrow{"narrow", 1e30, 0, 0, 1};
  EXPECT_TRUE(std::isinf(fraction_needed({layer()}, kWeights, 1000, 1, narrow, ideal(), 1.0)));
}

TEST(StepProjection, SeveralGpusByHand) {
  const GpuLimits gpu{"slow", 1e6, 0, 0, 1e3};
  ProjectionAssumptions a = ideal();
  a.link_bytes_per_s = 100;
  a.link_fraction = 0.5;
  const StepProjection step = project_step({layer()}, kWeights, kExamples, 1, gpu, a);
  const RanksProjection p = project_ranks(step, kWeights, kExamples, 64, 4, gpu, a);
  // Adam's 32 bytes of an element, bf16 weights (6), 16 physical batches of 24, then 12 and 8.
  const double gradients = 16 * (step.private_seconds - (32 + 6 + 44) * kWeights / 1e3);
  const double alone = gradients + (16 * 24 + 12 + 8 + 32 + 6) * kWeights / 1e3;
  EXPECT_NEAR(p.alone_seconds, alone, 1e-9 * alone);
  EXPECT_DOUBLE_EQ(p.sent_bytes, 0.75 * 12 * kWeights);
  const double together =
      gradients / 4 + (4 * 24 + 3 + 8 + 8 + 6) * kWeights / 1e3 + 0.75 * 12 * kWeights / 50;
  EXPECT_NEAR(p.together_seconds, together, 1e-9 * together);
  EXPECT_NEAR(p.efficiency(), alone / (4 * together), 1e-9);
  EXPECT_THROW(project_ranks(step, kWeights, kExamples, 62, 4, gpu, a), UsageError);
}

}  // namespace
}  // namespace sfumato
