#pragma once
#include <c10/util/intrusive_ptr.h>

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

namespace sfumato {

/// What libsfumato_cuda.so exports where it was built with NCCL's headers: puts NCCL's connections
/// between the GPUs of all ranks into `group`. Collective. Compiled, and not yet run on GPUs.
constexpr const char* kNcclEntry = "sfumato_nccl_group";
using NcclEntry = void (*)(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
                           c10::intrusive_ptr<c10d::Backend>* group);

}  // namespace sfumato
