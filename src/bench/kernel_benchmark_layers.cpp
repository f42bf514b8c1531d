// Weight gradients and Gram norms on the layers of google/ddpm-cifar10-32, and the library beside
// them.
#include <ATen/ops/bmm.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "bench/kernel_suite.h"
#include "kernels/conv_weight_grad.h"
#include "kernels/gram_norm.h"
#include "kernels/linear_weight_grad.h"
#include "sfumato/bench/layer_list.h"
#include "sfumato/bench/step_benchmark.h"
#include "sfumato/device/kernel_bridge.h"
#include "sfumato/nn/layers.h"

namespace sfumato {
namespace {

constexpr double kFloat32Bytes = 4, kBfloat16Bytes = 2;

/// Layers of one shape.
struct Shape {
  LayerWork work;
  int64_t layers = 0;
};

std::vector<Shape> shapes_of(const std::vector<LayerWork>& layers) {
  std::vector<Shape> shapes;
  for (const LayerWork& layer : layers) {
    const auto same = [&](const Shape& s) {
      return s.work.tokens == layer.tokens && s.work.input_tokens == layer.input_tokens &&
             s.work.fan_in == layer.fan_in && s.work.input_channels == layer.input_channels &&
             s.work.fan_out == layer.fan_out;
    };
    auto found = std::find_if(shapes.begin(), shapes.end(), same);
    if (found == shapes.end()) found = shapes.insert(found, {layer, 0});
    ++found->layers;
  }
  return shapes;
}

struct Inputs {
  at::Tensor x, dy;
};

Inputs conv_inputs(const KernelSuite& suite, const ConvShape& s, at::ScalarType type) {
  const auto image = [&](int64_t channels, int64_t height, int64_t width) {
    return suite.random({s.examples * s.draws, channels, height, width}, type)
        .contiguous(at::MemoryFormat::ChannelsLast);
  };
  return {image(s.channels, s.height, s.width), image(s.out_channels, s.out_height, s.out_width)};
}

Inputs linear_inputs(const KernelSuite& suite, const LinearShape& s, at::ScalarType type) {
  return {suite.random({s.examples, s.tokens, s.in_features}, type),
          suite.random({s.examples, s.tokens, s.out_features}, type)};
}

Conv2d::Options options_of(const ConvShape& s) {
  Conv2d::Options options;
  options.in = s.channels;
  options.out = s.out_channels;
  options.kernel = s.kernel;
  options.stride = s.stride;
  options.padding = s.padding;
  options.bias = false;
  return options;
}

at::Tensor library_weight_gradient(const at::Tensor& x, const at::Tensor& dy,
                                   const at::Tensor& weight, const Conv2d::Options& o,
                                   int64_t groups) {
  return std::get<1>(at::convolution_backward(
      dy, x, weight, at::OptionalIntArrayRef({weight.size(0)}), o.stride, o.padding, o.dilation,
      /*transposed=*/false, {0, 0}, groups, {false, true, false}));
}

/// A group for each example: the sum over the batch runs over draws only. As the library is used,
/// the copies that bring a batch into this form count.
at::Tensor grouped(const Inputs& in, const ConvShape& s, const Conv2d::Options& o) {
  const auto by_draw = [&](const at::Tensor& t) {
    return t.unflatten(0, {s.examples, s.draws})
        .transpose(0, 1)
        .reshape({s.draws, s.examples * t.size(1), t.size(2), t.size(3)});
  };
  const at::Tensor weight = at::empty(
      {s.examples * s.out_channels, s.channels, s.kernel[0], s.kernel[1]}, in.x.options());
  return library_weight_gradient(by_draw(in.x), by_draw(in.dy), weight, o, s.examples);
}

void compare_conv(KernelSuite& suite, const ConvShape& s, at::ScalarType type, KernelRow& row) {
  const Inputs in = conv_inputs(suite, s, type);
  const Conv2d::Options o = options_of(s);
  const at::Tensor weight =
      at::empty({s.out_channels, s.channels, s.kernel[0], s.kernel[1]}, in.x.options())
          .contiguous(at::MemoryFormat::ChannelsLast);
  row.library_summed_s =
      suite.time([&] { (void)library_weight_gradient(in.x, in.dy, weight, o, 1); }).min;
  const double one_by_one =
      suite
          .time([&] {
            for (int64_t i = 0; i < s.examples; ++i)
              (void)library_weight_gradient(in.x.narrow(0, i * s.draws, s.draws),
                                            in.dy.narrow(0, i * s.draws, s.draws), weight, o, 1);
          })
          .min;
  double together = std::numeric_limits<double>::infinity();
  try {
    together = suite.time([&] { (void)grouped(in, s, o); }).min;
  } catch (const c10::OutOfMemoryError&) {
    throw;
  } catch (const c10::Error&) {
    // The library has no grouped gradient of this type.
  }
  row.library_per_example_s = std::min(one_by_one, together);
  row.note = one_by_one < together ? "library: one by one" : "library: grouped";
}

void compare_linear(KernelSuite& suite, const LinearShape& s, at::ScalarType type, KernelRow& row) {
  const Inputs in = linear_inputs(suite, s, type);
  const at::Tensor x = in.x.flatten(0, 1), dy = in.dy.flatten(0, 1);
  row.library_summed_s = suite.time([&] { (void)at::mm(dy.t(), x); }).min;
  row.library_per_example_s = suite.time([&] { (void)at::bmm(in.dy.transpose(1, 2), in.x); }).min;
  row.note = "library: bmm";
}

std::string text_of(const ConvShape& s) {
  return fmt::format("{}x{}x{} -> {}, {}x{}{}, T {}", s.channels, s.height, s.width, s.out_channels,
                     s.kernel[0], s.kernel[1], s.stride[0] > 1 ? " stride 2" : "", s.tokens());
}
std::string text_of(const LinearShape& s) {
  return fmt::format("{} -> {}, T {}", s.in_features, s.out_features, s.tokens);
}

/// Elements of x, dy and per-example gradients of all examples.
struct Elements {
  double inputs, gradients;
};
Elements elements_of(const LayerWork& work, const ConvShape* conv, int64_t examples) {
  const auto b = static_cast<double>(examples);
  const double x =
      conv == nullptr
          ? static_cast<double>(work.tokens * work.fan_in)
          : static_cast<double>(conv->draws * conv->height * conv->width * conv->channels);
  return {b * (x + static_cast<double>(work.tokens * work.fan_out)),
          b * static_cast<double>(work.fan_in * work.fan_out)};
}

void add_layer(KernelSuite& suite, const Shape& shape, at::ScalarType type, bool gram) {
  const KernelBenchmarkOptions& o = suite.options();
  const bool linear = is_pointwise(shape.work);
  const ConvShape conv = linear ? ConvShape{} : conv_shape_of(shape.work, o.examples, o.draws);
  const LinearShape product = linear_shape_of(shape.work, o.examples);
  const Elements elements = elements_of(shape.work, linear ? nullptr : &conv, o.examples);
  const double size = type == at::kBFloat16 ? kBfloat16Bytes : kFloat32Bytes;
  const Element element = type == at::kBFloat16 ? Element::kBfloat16 : Element::kFloat32;
  KernelRow row;
  row.shape = linear ? text_of(product) : text_of(conv);
  row.element = element_name(type);
  row.bytes = size * elements.inputs;
  if (gram) {
    row.kernel = linear ? "gram_norm_linear" : "gram_norm_conv";
    if (type == at::kFloat) row.element = "fp32";
    row.flops =
        static_cast<double>(o.examples) * (linear ? gram_norm_linear_operations(product, element)
                                                  : gram_norm_conv_operations(conv, element));
    suite.add_on_gpu(row, [&]() -> KernelSuite::Work {
      if (linear)
        return [in = linear_inputs(suite, product, type)] {
          (void)bridge::linear_gram_norms(in.x, in.dy);
        };
      return [in = conv_inputs(suite, conv, type), conv] {
        (void)bridge::conv_gram_norms(in.x, in.dy, conv);
      };
    });
    return;
  }
  row.kernel = linear ? "linear_weight_grad" : "conv_weight_grad";
  row.layers = shape.layers;
  row.bytes += size * elements.gradients;
  row.flops = 2 * static_cast<double>(o.examples * shape.work.tokens) *
              static_cast<double>(shape.work.fan_in * shape.work.fan_out);
  suite.add_on_gpu(
      row,
      [&]() -> KernelSuite::Work {
        if (linear)
          return [in = linear_inputs(suite, product, type)] {
            (void)bridge::linear_weight_gradients(in.x, in.dy, {});
          };
        return [in = conv_inputs(suite, conv, type), conv] {
          (void)bridge::conv_weight_gradients(in.x, in.dy, conv, {});
        };
      },
      [&](KernelRow& added) {
        if (linear)
          compare_linear(suite, product, type, added);
        else
          compare_conv(suite, conv, type, added);
      });
}

}  // namespace

void add_layer_kernels(KernelSuite& suite) {
  const std::vector<Shape> shapes =
      shapes_of(layers_of(builtin_step_case("cifar10").network, suite.options().draws));
  for (const bool gram : {false, true})
    for (const at::ScalarType type : {at::kBFloat16, at::kFloat})
      for (const Shape& shape : shapes) add_layer(suite, shape, type, gram);
}

}  // namespace sfumato
