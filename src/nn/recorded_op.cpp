#include "nn/recorded_op.h"

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>

#include <unordered_set>
#include <utility>
#include <vector>

namespace sfumato {
namespace {

using Backward = std::function<at::Tensor(const at::Tensor&, bool)>;

class RecordedNode final : public torch::autograd::Node {
 public:
  explicit RecordedNode(Backward backward) : backward_(std::move(backward)) {}

  torch::autograd::variable_list apply(torch::autograd::variable_list&& grads) override {
    TORCH_CHECK(backward_, "a recorded layer ran its backward pass twice");
    // Moved out, so that the captured activations die with this call.
    const Backward backward = std::exchange(backward_, nullptr);
    const bool needs_input = task_should_compute_output(0);
    at::Tensor input_grad;
    if (grads[0].defined()) input_grad = backward(grads[0], needs_input);
    torch::autograd::variable_list out(1);
    if (needs_input) out[0] = std::move(input_grad);
    return out;
  }
  void release_variables() override { backward_ = nullptr; }
  std::string name() const override { return "sfumato::RecordedNode"; }

 private:
  Backward backward_;
};

}  // namespace

bool reaches_a_leaf(const at::Tensor& tensor) {
  std::unordered_set<const torch::autograd::Node*> seen;
  std::vector<std::shared_ptr<torch::autograd::Node>> left;
  if (tensor.grad_fn()) left.push_back(tensor.grad_fn());
  while (!left.empty()) {
    const std::shared_ptr<torch::autograd::Node> node = std::move(left.back());
    left.pop_back();
    if (!seen.insert(node.get()).second) continue;
    if (dynamic_cast<const torch::autograd::AccumulateGrad*>(node.get()) != nullptr) return true;
    for (const torch::autograd::Edge& edge : node->next_edges())
      if (edge.is_valid()) left.push_back(edge.function);
  }
  return false;
}

at::Tensor recorded_op(const at::Tensor& input, at::Tensor output, Backward backward) {
  auto node = std::shared_ptr<RecordedNode>(new RecordedNode(std::move(backward)),
                                            torch::autograd::deleteNode);
  // One slot for the input, valid or not: the node runs for the parameters' sake as well.
  node->set_next_edges({torch::autograd::impl::gradient_edge(input)});
  torch::autograd::set_history(output, node);
  return output;
}

}  // namespace sfumato
