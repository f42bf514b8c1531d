// What cuDNN does for LibTorch: convolutions and attention, whose results have the sizes and the
// memory layout that LibTorch gives to cuDNN's, and are zero. All of LibTorch's own code around
// them is in use: which library computes a layer, and the copies into the layout that it wants.
#include <ATen/Tensor.h>
#include <ATen/native/ConvUtils.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <array>
#include <tuple>

namespace {

using at::IntArrayRef;
using at::Tensor;

Tensor zeros(IntArrayRef sizes, const Tensor& like, at::MemoryFormat layout) {
  return at::empty(sizes, like.options(), layout).zero_();
}

void check_types(const Tensor& a, const Tensor& b) {
  TORCH_CHECK(a.scalar_type() == b.scalar_type() && a.device() == b.device(),
              "cuDNN wants operands of one type on one device, not ", a.scalar_type(), " on ",
              a.device(), " and ", b.scalar_type(), " on ", b.device());
}

Tensor convolution(const Tensor& input, const Tensor& weight, IntArrayRef padding,
                   IntArrayRef stride, IntArrayRef dilation, int64_t groups, bool, bool, bool) {
  check_types(input, weight);
  TORCH_CHECK(input.size(1) == weight.size(1) * groups,
              "channels of input and weight: ", input.sizes(), ", ", weight.sizes());
  return zeros(
      at::native::conv_output_size(input.sizes(), weight.sizes(), padding, stride, dilation), input,
      at::native::cudnn_conv_suggest_memory_format(input, weight));
}

Tensor transposed(const Tensor& input, const Tensor& weight, IntArrayRef padding,
                  IntArrayRef output_padding, IntArrayRef stride, IntArrayRef dilation,
                  int64_t groups, bool, bool, bool) {
  check_types(input, weight);
  return zeros(at::native::conv_input_size(input.sizes(), weight.sizes(), padding, output_padding,
                                           stride, dilation, groups),
               input, at::native::cudnn_conv_suggest_memory_format(input, weight));
}

std::tuple<Tensor, Tensor> backward(const Tensor& input, const Tensor& dy, const Tensor& weight,
                                    std::array<bool, 2> wanted) {
  check_types(input, dy);
  check_types(dy, weight);
  const Tensor output_gradient = dy.to(input.suggest_memory_format());
  Tensor of_input, of_weight;
  if (wanted[0])
    of_input = zeros(input.sizes(), output_gradient,
                     at::native::cudnn_conv_suggest_memory_format(output_gradient, weight));
  if (wanted[1])
    of_weight = zeros(weight.sizes(), output_gradient,
                      at::native::cudnn_conv_suggest_memory_format(input, output_gradient));
  return {of_input, of_weight};
}

std::tuple<Tensor, Tensor> convolution_backward(const Tensor& input, const Tensor& dy,
                                                const Tensor& weight, IntArrayRef, IntArrayRef,
                                                IntArrayRef, int64_t, bool, bool, bool,
                                                std::array<bool, 2> wanted) {
  return backward(input, dy, weight, wanted);
}

std::tuple<Tensor, Tensor> transposed_backward(const Tensor& input, const Tensor& dy,
                                               const Tensor& weight, IntArrayRef, IntArrayRef,
                                               IntArrayRef, IntArrayRef, int64_t, bool, bool, bool,
                                               std::array<bool, 2> wanted) {
  return backward(input, dy, weight, wanted);
}

// Attention: query [batch, heads, tokens, width]; the output has the query's order of dimensions.

using Attention =
    std::tuple<Tensor, Tensor, Tensor, Tensor, c10::SymInt, c10::SymInt, Tensor, Tensor, Tensor>;

Attention attention(const Tensor& query, const Tensor& key, const Tensor& value,
                    const std::optional<Tensor>&, const std::optional<Tensor>& sequences,
                    const std::optional<Tensor>&, int64_t most_queries, int64_t most_keys,
                    bool want_sums, double, bool, bool, std::optional<double>) {
  TORCH_CHECK(query.dim() == 4 && query.sizes() == value.sizes() && !sequences,
              "attention with values of another size than the queries is not pretended");
  check_types(query, key);
  check_types(query, value);
  Tensor sums;
  if (want_sums)
    sums = at::empty({query.size(0), query.size(1), query.size(2), 1},
                     query.options().dtype(at::kFloat));
  const Tensor seed = at::empty({}, query.options().dtype(at::kLong));
  return {at::empty_like(query).zero_(), sums,    Tensor(), Tensor(), most_queries, most_keys, seed,
          at::empty_like(seed),          Tensor()};
}

std::tuple<Tensor, Tensor, Tensor> attention_backward(
    const Tensor& dy, const Tensor& query, const Tensor& key, const Tensor& value,
    const Tensor& out, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
    const Tensor&, int64_t, int64_t, double, bool, std::optional<double>) {
  check_types(query, dy);
  check_types(query, out);
  return {at::empty_like(query).zero_(), at::empty_like(key).zero_(),
          at::empty_like(value).zero_()};
}

/// LibTorch warns of a kernel that replaces another.
struct Silence : c10::WarningHandler {
  void process(const c10::Warning&) override {}
};

const torch::Library* replace() {
  static Silence silence;
  const c10::WarningUtils::WarningHandlerGuard guard(&silence);
  // For as long as the process lives: registrations end with their library object.
  auto* library =
      new torch::Library(torch::Library::IMPL, "aten", c10::DispatchKey::CUDA, __FILE__, __LINE__);
  library->impl("cudnn_convolution", convolution);
  library->impl("cudnn_convolution_transpose", transposed);
  library->impl("_cudnn_attention_forward", attention);
  library->impl("_cudnn_attention_backward", attention_backward);
  at::native::cudnn_convolution_backward_stub.set_cuda_dispatch_ptr(convolution_backward);
  at::native::cudnn_convolution_transpose_backward_stub.set_cuda_dispatch_ptr(transposed_backward);
  return library;
}

[[maybe_unused]] const torch::Library* const replaced = replace();

}  // namespace
