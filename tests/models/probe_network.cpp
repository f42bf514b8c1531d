#include "models/probe_network.h"

#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/tensor.h>

#include <nlohmann/json.hpp>
#include <vector>

#include "sfumato/audit/clipped_sum_inspector.h"
#include "sfumato/nn/module.h"

namespace sfumato::test {

Shown probe_network(UNet2D& network, const Inputs& inputs, double clip_norm_l2,
                    AlgorithmPolicy policy) {
  Shown shown;
  ClipOptions clip;
  clip.clip_norm_l2 = clip_norm_l2;
  GradientEngine engine(network.parameters(), clip, policy);
  const BatchStatistics statistics =
      engine.accumulate(inputs.examples, inputs.draws, {}, [&](Tape& tape) -> at::Tensor {
        const at::Tensor out =
            network.forward(inputs.sample, inputs.timestep, inputs.labels, &tape);
        shown.out = out.detach();
        return out.sub(inputs.target).square().reshape({inputs.examples, -1}).mean({1});
      });
  shown.loss = statistics.loss;
  shown.norm = statistics.norm;
  const ClippedSum sum = engine.take();
  const std::vector<at::Tensor>& sums = ClippedSumInspector::sums(sum);
  for (std::size_t i = 0; i < sums.size(); ++i)
    shown.clipped_sum_norm[engine.trainable()[i]->name] =
        at::linalg_vector_norm(sums[i].to(at::kDouble)).item<double>();
  return shown;
}

double relative_difference(const at::Tensor& actual, const at::Tensor& expected) {
  const at::Tensor wanted = expected.to(at::kDouble).reshape({-1});
  const at::Tensor difference = actual.to(at::kDouble).reshape({-1}).sub(wanted).abs();
  return difference.max().item<double>() / wanted.abs().max().item<double>();
}

at::Tensor numbers(const nlohmann::json& list) {
  return at::tensor(list.get<std::vector<double>>());
}

UNet2DConfig small_config() {
  UNet2DConfig config;
  config.sample_size = {8, 8};
  config.block_out_channels = {8, 16};
  config.down_block_types = {"DownBlock2D", "AttnDownBlock2D"};
  config.up_block_types = {"AttnUpBlock2D", "UpBlock2D"};
  config.layers_per_block = 1;
  config.norm_num_groups = 4;
  return config;
}

}  // namespace sfumato::test
