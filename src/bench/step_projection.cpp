#include "sfumato/bench/step_projection.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "kernels/conv_weight_grad.h"
#include "sfumato/bench/layer_list.h"
#include "sfumato/core/error.h"

namespace sfumato {
namespace {

constexpr double kBfloat16 = 2, kFloat32 = 4;
/// Value, two moments, and the gradient or the clipped sum, all float32.
constexpr double kStateBytes = 4 * kFloat32;
/// Adam reads and writes all four.
constexpr double kUpdateBytes = 2 * kStateBytes;
/// Clip factors, their norms, tables and the update: once per step.
constexpr double kLaunchesOfAPrivateStep = 6;
/// Bytes of an element (kernels/exact_sum.h): a physical batch is added to integers, and its own
/// sum zeroed; once a step the integers become floats and are zeroed.
constexpr double kAddedBytes = 20 + 4, kTakenBytes = 12, kZeroedBytes = 8;
constexpr double kInt64 = 8;
/// What ranks exchange of an element: int64 of the sum, float32 of the weights.
constexpr double kExchangedBytes = 8 + 4;
const char* const kCastTerm = "weights to bf16";
const char* const kUpdateTerm = "update";
const char* const kExactTerm = "exact sum";

/// One layer's part of a physical batch.
struct Size {
  double flops, input, output, weights, kept;  ///< elements
};

Size size_of(const LayerWork& layer, int64_t examples) {
  const auto b = static_cast<double>(examples);
  const auto tokens = static_cast<double>(layer.tokens);
  const auto in = static_cast<double>(layer.fan_in), out = static_cast<double>(layer.fan_out);
  return {2 * b * tokens * in * out,
          b * static_cast<double>(layer.input_tokens) * static_cast<double>(layer.input_channels),
          b * tokens * out, in * out, b * in * out};
}

/// Seconds of kernels on one GPU under the assumptions.
struct Rates {
  const GpuLimits& gpu;
  const ProjectionAssumptions& a;

  double bytes(double count) const { return count / (gpu.bytes_per_s * a.memory_fraction); }
  double matrix(const LayerWork& layer, double flops, double count, double fraction = 1) const {
    const double width = std::min(1.0, static_cast<double>(layer.fan_out) / a.full_width);
    return least_seconds(flops, gpu.bf16_flops_per_s * a.matrix_fraction * width * fraction, count,
                         gpu.bytes_per_s * a.memory_fraction);
  }
};

void add_layer_times(const std::vector<LayerWork>& layers, int64_t examples, const Rates& rates,
                     StepProjection& projection) {
  double once = 0, plain = 0, priv = 0, activations = 0, to_float = 0, clip = 0;
  for (const LayerWork& layer : layers) {
    const Size s = size_of(layer, examples);
    const double ends = kBfloat16 * (s.input + s.output);
    projection.forward_flops += s.flops;
    once += rates.matrix(layer, s.flops, ends + kBfloat16 * s.weights);
    plain += rates.matrix(layer, s.flops, ends + kBfloat16 * s.weights);
    priv +=
        rates.matrix(layer, s.flops, ends + kBfloat16 * s.kept, rates.a.weight_gradient_fraction);
    activations += rates.bytes(rates.a.activation_passes * kBfloat16 * s.input);
    // Read as bfloat16, converted, added to the float32 gradient.
    to_float += rates.bytes((kBfloat16 + kFloat32 + 3 * kFloat32) * s.weights);
    clip += rates.bytes(kBfloat16 * s.kept + 2 * kFloat32 * s.weights);
  }
  projection.terms = {
      {"forward", "matrix products, or their bytes", once, once},
      {"input gradients", "as many operations", once, once},
      {"weight gradients", "summed by the library; per example, written in bf16", plain, priv},
      {"norms, activations", "bytes", activations, activations},
      {"gradient to float32", "bytes: library's bf16 into the float32 gradient", to_float, 0},
      {"clipped sum", "bytes: kept gradients read once, float32 sum", 0, clip}};
}

double peak_of_plain(const std::vector<LayerWork>& layers, int64_t examples,
                     const ProjectionAssumptions& a) {
  double held = 0;
  for (const LayerWork& layer : layers)
    held += a.activation_copies * kBfloat16 * size_of(layer, examples).input;
  return held;
}

/// Walking back, each layer gives its activations up and keeps its gradients.
double peak_of_private(const std::vector<LayerWork>& layers, int64_t examples, int64_t draws,
                       const ProjectionAssumptions& a) {
  double held = peak_of_plain(layers, examples, a), peak = held;
  for (auto layer = layers.rbegin(); layer != layers.rend(); ++layer) {
    const Size s = size_of(*layer, examples);
    held += kBfloat16 * s.kept;
    const ConvShape shape = is_pointwise(*layer) ? as_conv_shape(linear_shape_of(*layer, examples))
                                                 : conv_shape_of(*layer, examples, draws);
    const auto workspace = static_cast<double>(conv_weight_grad_workspace_bytes(shape));
    peak = std::max(peak, held + workspace);
    held -= a.activation_copies * kBfloat16 * s.input;
  }
  return peak;
}

}  // namespace

StepProjection project_step(const std::vector<LayerWork>& layers, double parameters,
                            int64_t examples, int64_t draws, const GpuLimits& gpu,
                            const ProjectionAssumptions& a) {
  StepProjection projection;
  const Rates rates{gpu, a};
  add_layer_times(layers, examples, rates, projection);
  const double cast = rates.bytes((kFloat32 + kBfloat16) * parameters);
  const double update = kUpdateBytes * parameters / gpu.bytes_per_s;
  const auto count = static_cast<double>(layers.size());
  const double launches = count * a.launches_per_layer;
  projection.terms.push_back({kCastTerm, "bytes, once per step", cast, cast});
  projection.terms.push_back(
      {kExactTerm, "bytes: float32 to int64 and back", 0,
       rates.bytes((kAddedBytes + kTakenBytes + kZeroedBytes) * parameters)});
  projection.terms.push_back({kUpdateTerm, "bytes: Adam; private_update with noise",
                              update / a.memory_fraction, update / a.update_fraction});
  projection.terms.push_back(
      {"launches", "kernels of a recorded step", launches * a.launch_seconds,
       (launches + count * a.more_launches_per_layer + kLaunchesOfAPrivateStep) *
           a.launch_seconds});
  for (const ProjectedTerm& term : projection.terms) {
    projection.plain_seconds += term.plain;
    projection.private_seconds += term.priv;
  }
  const double state = (kStateBytes + kBfloat16) * parameters;
  projection.plain_bytes = state + peak_of_plain(layers, examples, a);
  projection.private_bytes =
      state + kInt64 * parameters + peak_of_private(layers, examples, draws, a);
  return projection;
}

RanksProjection project_ranks(const StepProjection& step, double parameters, int64_t examples,
                              int64_t batch, int64_t ranks, const GpuLimits& gpu,
                              const ProjectionAssumptions& a) {
  if (ranks < 1 || batch < 1 || batch % (ranks * examples) != 0)
    throw UsageError(fmt::format(
        "a logical batch of {} is no multiple of {} GPUs times a physical batch of {}; choose "
        "another --batch or --examples",
        batch, ranks, examples));
  double cast = 0, update = 0, exact = 0;
  for (const ProjectedTerm& term : step.terms) {
    if (term.name == kCastTerm) cast = term.priv;
    if (term.name == kUpdateTerm) update = term.priv;
    if (term.name == kExactTerm) exact = term.priv;
  }
  const auto w = static_cast<double>(ranks);
  const double batches = static_cast<double>(batch / examples);
  const auto bytes = [&](double of_element) {
    return of_element * parameters / (gpu.bytes_per_s * a.memory_fraction);
  };
  const double gradient = (step.private_seconds - cast - update - exact) * batches;
  const double added = bytes(kAddedBytes) * batches;
  RanksProjection projection;
  projection.ranks = ranks;
  projection.sent_bytes = (w - 1) / w * kExchangedBytes * parameters;
  projection.terms = {{"gradients", "physical batches one after the other", gradient, gradient / w},
                      {"into the exact sum", "bytes: exact_sum_add", added, added / w},
                      {"out of the exact sum", "bytes: exact_sum_take",
                       bytes(kTakenBytes + kZeroedBytes), bytes(kTakenBytes / w + kZeroedBytes)},
                      {"exchange", "int64 sums to the owners of slices, float32 weights from them",
                       0, projection.sent_bytes / (a.link_bytes_per_s * a.link_fraction)},
                      {"update", "each GPU its slice", update, update / w},
                      {kCastTerm, "bytes", cast, cast}};
  for (const ProjectedTerm& term : projection.terms) {
    projection.alone_seconds += term.plain;
    projection.together_seconds += term.priv;
  }
  return projection;
}

double fraction_needed(const std::vector<LayerWork>& layers, double parameters, int64_t examples,
                       int64_t draws, const GpuLimits& gpu, ProjectionAssumptions assumptions,
                       double ratio) {
  const auto enough = [&](double fraction) {
    assumptions.weight_gradient_fraction = fraction;
    return project_step(layers, parameters, examples, draws, gpu, assumptions).time_ratio() <=
           ratio;
  };
  double low = 0.01, high = 10;
  if (!enough(high)) return std::numeric_limits<double>::infinity();
  for (int i = 0; i < 40; ++i) {
    const double middle = (low + high) / 2;
    (enough(middle) ? high : low) = middle;
  }
  return high;
}

double per_draw_engine_bytes(const std::vector<LayerWork>& layers, double parameters,
                             int64_t examples, int64_t draws,
                             const ProjectionAssumptions& assumptions) {
  return kStateBytes * parameters + kFloat32 * parameters * static_cast<double>(examples * draws) +
         peak_of_plain(layers, examples, assumptions);
}

}  // namespace sfumato
