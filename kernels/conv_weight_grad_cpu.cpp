#include "kernels/conv_weight_grad.h"

#include <algorithm>
#include <vector>

#include "kernels/element_access.h"
#include "kernels/warpgroup_weight_grad_plan.h"
#include "kernels/weight_grad_plan.h"

namespace sfumato {
namespace {

/// Adds token (k, oy, ox)'s outer product to `sums` [P, kh, kw, C].
void add_token(const float* x, const float* dy, const ConvShape& shape, std::int64_t oy,
               std::int64_t ox, double* sums) {
  const std::int64_t channels = shape.channels;
  for (std::int64_t p = 0; p < shape.out_channels; ++p) {
    const double d = dy[p];
    for (std::int64_t ky = 0; ky < shape.kernel[0]; ++ky)
      for (std::int64_t kx = 0; kx < shape.kernel[1]; ++kx, sums += channels) {
        const std::int64_t iy = oy * shape.stride[0] - shape.padding[0] + ky * shape.dilation[0];
        const std::int64_t ix = ox * shape.stride[1] - shape.padding[1] + kx * shape.dilation[1];
        const bool inside = iy >= 0 && iy < shape.height && ix >= 0 && ix < shape.width;
        const float* pixel = inside ? x + (iy * shape.width + ix) * channels : nullptr;
        for (std::int64_t c = 0; c < channels; ++c)
          sums[c] += d * (inside ? double{pixel[c]} : 0.0);
      }
  }
}

std::vector<float> as_floats(const void* data, Element element, std::int64_t begin,
                             std::int64_t count) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (std::int64_t j = 0; j < count; ++j)
    values[static_cast<std::size_t>(j)] = element_at(data, element, begin + j);
  return values;
}

}  // namespace

std::int64_t conv_weight_grad_workspace_bytes(const ConvShape& shape) {
  return std::max({plan_weight_grad(shape, Element::kFloat32).workspace_bytes(shape),
                   plan_weight_grad(shape, Element::kBfloat16).workspace_bytes(shape),
                   warpgroup_takes(shape) ? plan_warpgroup_weight_grad(shape).workspace_bytes(shape)
                                          : std::int64_t{0}});
}

void conv_weight_grad_cpu(const void* x, const void* dy, Element in, const ConvShape& shape,
                          void* grad, Element out, float* bias_grad, double* squared_norm,
                          double* bias_squared_norm) {
  const std::int64_t image_elements = shape.height * shape.width * shape.channels;
  const std::int64_t outputs = shape.out_height * shape.out_width;
  const std::int64_t rows = shape.out_channels, weights = shape.weights();
  for (std::int64_t i = 0; i < shape.examples; ++i) {
    const auto image =
        as_floats(x, in, i * shape.draws * image_elements, shape.draws * image_elements);
    const auto dys = as_floats(dy, in, i * shape.tokens() * rows, shape.tokens() * rows);
    std::vector<double> sums(static_cast<std::size_t>(weights));
    std::vector<double> bias(static_cast<std::size_t>(rows));
    for (std::int64_t t = 0; t < shape.tokens(); ++t) {
      const std::int64_t k = t / outputs, oy = t % outputs / shape.out_width;
      add_token(image.data() + k * image_elements, dys.data() + t * rows, shape, oy,
                t % shape.out_width, sums.data());
      for (std::int64_t p = 0; p < rows; ++p)
        bias[static_cast<std::size_t>(p)] += dys[static_cast<std::size_t>(t * rows + p)];
    }
    double norm = 0, bias_norm = 0;
    for (std::int64_t j = 0; j < weights; ++j) {
      auto value = static_cast<float>(sums[static_cast<std::size_t>(j)]);
      if (grad != nullptr) {
        set_element(grad, out, i * weights + j, value);
        value = element_at(grad, out, i * weights + j);
      }
      norm += double{value} * double{value};
    }
    for (std::int64_t p = 0; p < rows; ++p) {
      const auto value = static_cast<float>(bias[static_cast<std::size_t>(p)]);
      if (bias_grad != nullptr) bias_grad[i * rows + p] = value;
      bias_norm += double{value} * double{value};
    }
    if (squared_norm != nullptr) squared_norm[i] = norm;
    if (bias_squared_norm != nullptr) bias_squared_norm[i] = bias_norm;
  }
}

}  // namespace sfumato
