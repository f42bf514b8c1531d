#include <nlohmann/json.hpp>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/io/json_file.h"
#include "sfumato/models/checkpoint_io.h"
#include "sfumato/models/tensor_file.h"

namespace sfumato {

void save_unet2d(const std::filesystem::path& folder, const UNet2DConfig& config,
                 const NamedTensors& weights) {
  NamedTensors float32;
  for (const auto& [name, weight] : weights)
    float32.emplace_back(name, weight.to(at::kCPU, at::kFloat));
  make_folder(folder);
  write_tensor_file(folder / "diffusion_pytorch_model.safetensors", float32);
  write_json_atomic(folder / "config.json", config.to_json());
}

void save_pipeline(const std::filesystem::path& folder, const UNet2DConfig& config,
                   const NamedTensors& weights, const nlohmann::ordered_json& scheduler_config) {
  const auto scheduler = scheduler_config.find("_class_name");
  if (scheduler == scheduler_config.end() || !scheduler->is_string())
    throw DataError("the scheduler's configuration lacks _class_name, by which diffusers finds it");
  save_unet2d(folder / "unet", config, weights);
  make_folder(folder / "scheduler");
  write_json_atomic(folder / "scheduler" / "scheduler_config.json", scheduler_config);
  // Last: a folder with an index is complete.
  const nlohmann::json index = {{"_class_name", "DDPMPipeline"},
                                {"_diffusers_version", kDiffusersVersion},
                                {"scheduler", {"diffusers", *scheduler}},
                                {"unet", {"diffusers", "UNet2DModel"}}};
  write_json_atomic(folder / "model_index.json", index);
}

}  // namespace sfumato
