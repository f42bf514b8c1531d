#include "sfumato/models/tensor_file.h"

#include <ATen/ops/empty.h>

#include <cstring>
#include <memory>
#include <utility>

#include "sfumato/core/error.h"

namespace sfumato {
namespace {

TensorDtype dtype_of(const std::string& name, const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat: return TensorDtype::kF32;
    case at::kDouble: return TensorDtype::kF64;
    case at::kHalf: return TensorDtype::kF16;
    case at::kBFloat16: return TensorDtype::kBF16;
    case at::kLong: return TensorDtype::kI64;
    case at::kInt: return TensorDtype::kI32;
    case at::kByte: return TensorDtype::kU8;
    case at::kBool: return TensorDtype::kBool;
    default: throw DataError("tensor '" + name + "' has a dtype that sfumato does not write");
  }
}

bool is_integer(TensorDtype dtype) {
  switch (dtype) {
    case TensorDtype::kBool:
    case TensorDtype::kU8:
    case TensorDtype::kI8:
    case TensorDtype::kI16:
    case TensorDtype::kU16:
    case TensorDtype::kI32:
    case TensorDtype::kU32:
    case TensorDtype::kI64:
    case TensorDtype::kU64: return true;
    default: return false;
  }
}

}  // namespace

TensorGroup tensor_group(std::string name, const NamedTensors& tensors) {
  auto kept = std::make_shared<std::vector<at::Tensor>>();
  TensorGroup group{std::move(name), {}, kept};
  for (const auto& [key, tensor] : tensors) {
    const at::Tensor& t = kept->emplace_back(tensor.detach().cpu().contiguous());
    const auto* bytes = static_cast<const std::byte*>(t.const_data_ptr());
    group.tensors.push_back({key, dtype_of(key, t), t.sizes().vec(), {bytes, t.nbytes()}});
  }
  return group;
}

void write_tensor_file(const std::filesystem::path& path, const NamedTensors& tensors,
                       unsigned mode) {
  write_safetensors(path, tensor_group({}, tensors).tensors, {}, mode);
}

at::Tensor to_tensor(const TensorInfo& info) {
  const auto filled = [&](const auto& values, at::ScalarType type) {
    at::Tensor out = at::empty(info.shape, type);
    if (!values.empty())
      std::memcpy(out.mutable_data_ptr(), values.data(), values.size() * sizeof(values[0]));
    return out;
  };
  if (is_integer(info.dtype)) return filled(to_int64(info), at::kLong);
  if (info.dtype == TensorDtype::kF64) {
    at::Tensor out = at::empty(info.shape, at::kDouble);
    std::memcpy(out.mutable_data_ptr(), info.bytes.data(), info.bytes.size());
    return out;
  }
  return filled(to_float32(info), at::kFloat);
}

NamedTensors to_tensors(const TensorGroup& group) {
  NamedTensors tensors;
  for (const TensorInfo& info : group.tensors) tensors.emplace_back(info.name, to_tensor(info));
  return tensors;
}

}  // namespace sfumato
