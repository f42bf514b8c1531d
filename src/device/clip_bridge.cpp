// The passage to the kernels behind clipping and the update.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <fmt/format.h>

#include "device/bridge_checks.h"

namespace sfumato::bridge {
namespace {

at::Tensor scaled(const at::Tensor& tensor, const at::Tensor& factors, bool only_zero) {
  constexpr const char* kName = "scale_examples";
  const Element in = element_of(kName, tensor);
  const int64_t examples = factors.numel();
  check_type(kName, factors, at::kFloat, examples);
  check_device(kName, factors, tensor);
  if (!tensor.is_non_overlapping_and_dense() || (examples > 0 && tensor.size(0) % examples != 0))
    refuse(kName, tensor, "dense rows, the draws of each example together");
  at::Tensor out = at::empty_like(tensor);
  const int64_t columns = examples == 0 ? 0 : tensor.numel() / examples;
  check_launch(
      require_kernels(kName, tensor)
          .scale_examples(tensor.const_data_ptr(), in, factors.const_data_ptr<float>(), only_zero,
                          examples, columns, out.mutable_data_ptr(), stream_of(tensor)),
      kName);
  return out;
}

}  // namespace

at::Tensor scaled_examples(const at::Tensor& tensor, const at::Tensor& factors) {
  return scaled(tensor, factors, /*only_zero=*/false);
}
at::Tensor without_zero_factors(const at::Tensor& tensor, const at::Tensor& factors) {
  return scaled(tensor, factors, /*only_zero=*/true);
}

ClipResult clip_factors(const at::Tensor& squared_norms, const at::Tensor& mask,
                        const ClipFactorOptions& options) {
  constexpr const char* kName = "clip_factors";
  if (squared_norms.dim() != 2) refuse(kName, squared_norms, "[layers, examples]");
  const int64_t layers = squared_norms.size(0), examples = squared_norms.size(1);
  check_type(kName, squared_norms, at::kDouble, layers * examples);
  if (mask.defined()) {
    check_type(kName, mask, at::kFloat, examples);
    check_device(kName, mask, squared_norms);
  }
  const int64_t rows = options.rule == ClipRule::kPerLayer ? layers : 1;
  ClipResult out{at::empty({rows, examples}, options_of(squared_norms, at::kFloat)),
                 at::empty({examples}, options_of(squared_norms, at::kDouble)),
                 at::empty({examples}, options_of(squared_norms, at::kByte))};
  const float* real = mask.defined() ? mask.const_data_ptr<float>() : nullptr;
  const double* squared = squared_norms.const_data_ptr<double>();
  float* factors = out.factors.mutable_data_ptr<float>();
  double* total = out.total_norm.mutable_data_ptr<double>();
  uint8_t* flags = out.flags.mutable_data_ptr<uint8_t>();
  if (const KernelSet* set = kernels_for(squared_norms))
    check_launch(set->clip_factors(squared, layers, examples, real, options, factors, total, flags,
                                   stream_of(squared_norms)),
                 kName);
  else
    clip_factors_cpu(squared, layers, examples, real, options, factors, total, flags);
  return out;
}

void clip_accumulate(const std::vector<KeptEntry>& entries, const at::Tensor& factors) {
  constexpr const char* kName = "clip_accumulate";
  if (entries.empty()) return;
  const int64_t examples = factors.size(1);
  check_type(kName, factors, at::kFloat, factors.size(0) * examples);
  std::vector<KeptGradient> table;
  for (const KeptEntry& entry : entries) {
    const int64_t count = entry.sum.numel();
    if (entry.gradients.numel() != examples * count || !entry.gradients.is_contiguous())
      refuse(kName, entry.gradients, fmt::format("contiguous rows [{}, {}]", examples, count));
    if (entry.sum.scalar_type() != at::kFloat || !entry.sum.is_non_overlapping_and_dense())
      refuse(kName, entry.sum, "a dense float32 sum");
    check_device(kName, entry.gradients, factors);
    check_device(kName, entry.sum, factors);
    if (entry.factor_row < 0 || entry.factor_row >= factors.size(0))
      refuse(kName, factors, fmt::format("a row {} of factors", entry.factor_row));
    KeptGradient row = {};
    row.gradients = entry.gradients.const_data_ptr();
    row.sum = entry.sum.mutable_data_ptr<float>();
    row.count = count;
    row.factor_row = entry.factor_row;
    row.element = element_of(kName, entry.gradients);
    table.push_back(row);
  }
  const KernelSet& set = require_kernels(kName, factors);
  const auto size = static_cast<int64_t>(table.size());
  const int64_t blocks = prepare_clip_accumulate(table.data(), size);
  const auto bytes = size * static_cast<int64_t>(sizeof(KeptGradient));
  const at::Tensor device_table = workspace(factors, bytes);
  void* stream = stream_of(factors);
  check_launch(set.upload(device_table.mutable_data_ptr(), table.data(), bytes, stream), "upload");
  check_launch(set.clip_accumulate(static_cast<const KeptGradient*>(device_table.const_data_ptr()),
                                   size, blocks, factors.const_data_ptr<float>(), examples,
                                   /*overwrite=*/false, stream),
               kName);
}

namespace {

float* update_data(const at::Tensor& tensor, const at::Tensor& sum) {
  constexpr const char* kName = "private_update";
  if (!tensor.defined()) return nullptr;
  if (tensor.scalar_type() != at::kFloat || !same_memory_order(tensor, sum) ||
      !tensor.is_non_overlapping_and_dense() || tensor.device() != sum.device())
    refuse(kName, tensor, fmt::format("float32 {} laid out as the sum", c10::str(sum.sizes())));
  return tensor.mutable_data_ptr<float>();
}

}  // namespace

void private_update(const std::vector<UpdateTensors>& tensors, const PrivateUpdateOptions& options,
                    const ChaChaKey& key) {
  constexpr const char* kName = "private_update";
  if (tensors.empty()) return;
  std::vector<PrivateUpdateTensor> table;
  for (const UpdateTensors& t : tensors) {
    PrivateUpdateTensor row = {};
    row.sum = update_data(t.sum, t.sum);
    row.value = update_data(t.value, t.sum);
    row.first = update_data(t.first, t.sum);
    row.second = update_data(t.second, t.sum);
    row.average = update_data(t.average, t.sum);
    row.count = t.sum.numel();
    row.rate_scale = static_cast<float>(t.rate_scale);
    row.nonce_tensor = static_cast<uint32_t>(table.size());
    row.noise_group = t.noise_group;
    table.push_back(row);
  }
  const auto size = static_cast<int64_t>(table.size());
  const int64_t groups = prepare_private_update(table.data(), size);
  const at::Tensor& like = tensors.front().sum;
  if (groups < 0) refuse(kName, like, "tensors that one noise stream can serve");
  const KernelSet* set = kernels_for(like);
  if (set == nullptr) {
    // Grain: as many groups as a page of work, so that few threads share a small tensor.
    at::parallel_for(0, groups, 128, [&](int64_t begin, int64_t end) {
      private_update_cpu(table.data(), size, begin, end, options, key);
    });
    return;
  }
  const auto bytes = size * static_cast<int64_t>(sizeof(PrivateUpdateTensor));
  const at::Tensor device_table = workspace(like, bytes);
  void* stream = stream_of(like);
  check_launch(set->upload(device_table.mutable_data_ptr(), table.data(), bytes, stream), "upload");
  check_launch(
      set->private_update(static_cast<const PrivateUpdateTensor*>(device_table.const_data_ptr()),
                          size, groups, options, key, stream),
      kName);
}

namespace {

constexpr int64_t kExactGrain = int64_t{1} << 15;

int64_t check_exact(const char* name, const at::Tensor& floats, const at::Tensor& sum) {
  check_type(name, floats, at::kFloat, sum.numel());
  check_type(name, sum, at::kLong, sum.numel());
  check_device(name, floats, sum);
  return sum.numel();
}

}  // namespace

void exact_sum_add(const at::Tensor& values, const ExactGrid& grid, bool store,
                   const at::Tensor& sum) {
  constexpr const char* kName = "exact_sum_add";
  const int64_t count = check_exact(kName, values, sum);
  const float* from = values.const_data_ptr<float>();
  int64_t* to = sum.mutable_data_ptr<int64_t>();
  if (const KernelSet* set = kernels_for(sum))
    return check_launch(set->exact_sum_add(from, count, grid, store, to, stream_of(sum)), kName);
  at::parallel_for(0, count, kExactGrain, [&](int64_t begin, int64_t end) {
    exact_sum_add_cpu(from + begin, end - begin, grid, store, to + begin);
  });
}

void exact_sum_take(const at::Tensor& sum, double unit, const at::Tensor& out) {
  constexpr const char* kName = "exact_sum_take";
  const int64_t count = check_exact(kName, out, sum);
  const int64_t* from = sum.const_data_ptr<int64_t>();
  float* to = out.mutable_data_ptr<float>();
  if (const KernelSet* set = kernels_for(sum))
    return check_launch(set->exact_sum_take(from, count, unit, to, stream_of(sum)), kName);
  at::parallel_for(0, count, kExactGrain, [&](int64_t begin, int64_t end) {
    exact_sum_take_cpu(from + begin, end - begin, unit, to + begin);
  });
}

}  // namespace sfumato::bridge
