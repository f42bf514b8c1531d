// Part of libsfumato_cuda.so: the only code that is compiled against NCCL's headers.
#include "dist/nccl_plugin/nccl_group.h"

#include <chrono>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

extern "C" __attribute__((visibility("default"))) void sfumato_nccl_group(
    const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
    c10::intrusive_ptr<c10d::Backend>* group) {
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = std::chrono::hours(24 * 7);  // the watch over ranks ends what hangs
  *group = c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, size, options);
}
