#include "dist/tensor_checks.h"

#include <fmt/format.h>

#include "sfumato/core/error.h"

namespace sfumato {
namespace {

void require(bool fits, const at::Tensor& tensor, const char* call, const char* wanted) {
  if (fits) return;
  throw DeviceError(fmt::format("{} of ranks needs {}, not {} {} with strides {}", call, wanted,
                                at::toString(tensor.scalar_type()), c10::str(tensor.sizes()),
                                c10::str(tensor.strides())));
}

bool adds(const at::Tensor& tensor) {
  const at::ScalarType type = tensor.scalar_type();
  return tensor.is_contiguous() &&
         (type == at::kFloat || type == at::kDouble || type == at::kInt || type == at::kLong);
}

}  // namespace

void check_summable(const std::vector<at::Tensor>& tensors) {
  for (const at::Tensor& tensor : tensors)
    require(adds(tensor), tensor, "all_reduce_sum",
            "contiguous tensors of float32, float64, int32 or int64");
}

void check_sliceable(const std::vector<at::Tensor>& tensors) {
  for (const at::Tensor& tensor : tensors)
    require(tensor.dim() == 1 && adds(tensor), tensor, "reduce_slices",
            "flat contiguous tensors of float32, float64, int32 or int64");
}

void check_sendable(const std::vector<at::Tensor>& tensors) {
  for (const at::Tensor& tensor : tensors)
    require(tensor.is_contiguous(), tensor, "broadcast", "contiguous tensors");
}

}  // namespace sfumato
