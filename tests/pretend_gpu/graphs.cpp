#include "pretend_gpu/graphs.h"

#include <map>

#include "pretend_gpu/capture.h"
#include "pretend_gpu/report.h"
#include "pretend_gpu/settings.h"

namespace pretend_gpu {
namespace {

/// Those that were not destroyed, by their handles, which are never used twice.
template <class Handle>
class Living {
 public:
  Handle add(const Graph& graph) {
    last_ += 16;
    all_[last_] = graph;
    return reinterpret_cast<Handle>(last_);
  }
  const Graph* find(Handle handle) const {
    const auto found = all_.find(reinterpret_cast<uintptr_t>(handle));
    return found == all_.end() ? nullptr : &found->second;
  }
  bool remove(Handle handle) { return all_.erase(reinterpret_cast<uintptr_t>(handle)) > 0; }

 private:
  std::map<uintptr_t, Graph> all_;
  uintptr_t last_ = 0x1000;
};

Living<cudaGraph_t>& graphs() {
  static auto* const once = new Living<cudaGraph_t>;
  return *once;
}
Living<cudaGraphExec_t>& executables() {
  static auto* const once = new Living<cudaGraphExec_t>;
  return *once;
}

cudaError_t no_graph(const char* who) {
  return illegal(cudaErrorInvalidValue,
                 std::string(who) + " of a graph that does not exist, or no longer");
}

}  // namespace

cudaGraph_t add_graph(const Graph& graph) { return graphs().add(graph); }

}  // namespace pretend_gpu

using namespace pretend_gpu;

extern "C" {

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* executable, cudaGraph_t graph,
                                          unsigned long long) {
  if (const cudaError_t error = use_device("cudaGraphInstantiate")) return error;
  const Lock lock;
  const Graph* found = graphs().find(graph);
  if (found == nullptr) return no_graph("cudaGraphInstantiate");
  if (settings().break_graphs) return set_last_error(cudaErrorMemoryAllocation);
  *executable = executables().add(*found);
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph,
                                 unsigned long long flags) {
  return cudaGraphInstantiateWithFlags(executable, graph, flags);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  const Lock lock;
  const Graph* found = executables().find(executable);
  if (found == nullptr) return no_graph("cudaGraphLaunch");
  if (const cudaError_t error = submit(stream, "cudaGraphLaunch", found->microseconds))
    return error;
  count(Count::kGraphLaunches);
  return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, size_t* node_count) {
  const Lock lock;
  const Graph* found = graphs().find(graph);
  if (found == nullptr) return no_graph("cudaGraphGetNodes");
  if (nodes != nullptr) return not_pretended("cudaGraphGetNodes with a list of nodes");
  *node_count = found->nodes;
  return cudaSuccess;
}

cudaError_t cudaGraphNodeGetDependencies(cudaGraphNode_t, cudaGraphNode_t*, cudaGraphEdgeData*,
                                         size_t*) {
  return not_pretended("cudaGraphNodeGetDependencies");
}

cudaError_t cudaGraphDebugDotPrint(cudaGraph_t, const char*, unsigned) {
  return not_pretended("cudaGraphDebugDotPrint");
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  const Lock lock;
  return graphs().remove(graph) ? cudaSuccess : no_graph("cudaGraphDestroy");
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  const Lock lock;
  return executables().remove(executable) ? cudaSuccess : no_graph("cudaGraphExecDestroy");
}

}  // extern "C"
