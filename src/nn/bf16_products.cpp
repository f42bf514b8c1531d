#include "nn/bf16_products.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include "kernels/cpu_bf16.h"
#include "nn/recorded_op.h"

namespace sfumato {
namespace {

constexpr at::MemoryFormat kChannelsLast = at::MemoryFormat::ChannelsLast;

std::uint16_t* bits_of(at::Tensor& tensor) {
  return static_cast<std::uint16_t*>(tensor.mutable_data_ptr());
}
const std::uint16_t* bits_of(const at::Tensor& tensor) {
  return static_cast<const std::uint16_t*>(tensor.const_data_ptr());
}

at::Tensor to_bf16(const at::Tensor& images) {
  const at::Tensor from = images.detach().contiguous();
  at::Tensor to = at::empty(from.sizes(), from.options().dtype(at::kBFloat16), kChannelsLast);
  const float* read = from.const_data_ptr<float>();
  std::uint16_t* write = bits_of(to);
  at::parallel_for(0, from.size(0), 1, [&](int64_t begin, int64_t end) {
    images_to_bf16_cpu(read, begin, end, from.size(1), from.size(2) * from.size(3), write);
  });
  return to;
}

at::Tensor from_bf16(const at::Tensor& images) {
  const at::Tensor from = images.detach().contiguous(kChannelsLast);
  at::Tensor to = at::empty(from.sizes(), from.options().dtype(at::kFloat));
  float* write = to.mutable_data_ptr<float>();
  at::parallel_for(0, from.size(0), 1, [&](int64_t begin, int64_t end) {
    images_from_bf16_cpu(bits_of(from), begin, end, from.size(1), from.size(2) * from.size(3),
                         write);
  });
  return to;
}

bool differentiates(const at::Tensor& input) {
  return at::GradMode::is_enabled() && input.requires_grad();
}

}  // namespace

at::Tensor rounded_images(const at::Tensor& images) {
  at::Tensor out = to_bf16(images);
  if (!differentiates(images)) return out;
  return recorded_op(images, std::move(out),
                     [](const at::Tensor& gradient, bool) { return from_bf16(gradient); });
}

at::Tensor widened_images(const at::Tensor& images) {
  at::Tensor out = from_bf16(images);
  if (!differentiates(images)) return out;
  return recorded_op(images, std::move(out),
                     [](const at::Tensor& gradient, bool) { return to_bf16(gradient); });
}

KeptInFloat32 weight_gradients_of_bf16(const at::Tensor& x, const at::Tensor& dy,
                                       const ConvShape& s) {
  KeptInFloat32 out{
      at::empty({s.examples, s.out_channels, s.kernel[0], s.kernel[1], s.channels}, at::kFloat),
      at::empty({s.examples}, at::kDouble)};
  float* kept = out.kept.mutable_data_ptr<float>();
  double* norms = out.squared_norm.mutable_data_ptr<double>();
  at::parallel_for(0, s.examples, 1, [&](int64_t begin, int64_t end) {
    conv_weight_grad_bf16_cpu(bits_of(x), bits_of(dy), s, begin, end, kept, norms);
  });
  return out;
}

}  // namespace sfumato
