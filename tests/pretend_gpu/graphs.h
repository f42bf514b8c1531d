#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>

namespace pretend_gpu {

/// What a capture ended in.
struct Graph {
  size_t nodes = 0;
  double microseconds = 0;
};
cudaGraph_t add_graph(const Graph& graph);

}  // namespace pretend_gpu
