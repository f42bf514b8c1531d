#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "sfumato/models/tensor_file.h"
#include "sfumato/models/unet2d.h"

namespace sfumato {

/// How the class conditioning of a pretrained network is fitted to another set of classes.
struct LoadOptions {
  /// Number of classes wanted. Empty: as the checkpoint is. 0: unconditional. If the checkpoint's
  /// class table has another number of rows (or there is none), a new table is made.
  std::optional<int64_t> class_rows;
  double class_embedding_std = 1.0;    ///< new rows are N(0, std^2); 0 keeps the output as it was
  double class_embedding_scale = 1.0;  ///< factor of reused rows
  bool reuse_class_rows = false;       ///< the new table starts with the pretrained table's rows
  uint64_t seed = 0;                   ///< of new rows
};

struct LoadedUNet {
  std::unique_ptr<UNet2D> network;
  std::filesystem::path folder;            ///< holds config.json and the weights
  std::filesystem::path scheduler_config;  ///< scheduler_config.json beside it; empty if none
};

/// Loads a diffusers checkpoint: a folder as find_model_folder takes it, weights as find_weights
/// takes them, in one file or shards, of any precision. Attention keys of files before 2023 (query,
/// key, value, proj_attn) are renamed. DataError for a bad configuration, for weights that do not
/// fit it (every missing, superfluous or misshapen tensor in one message), and for a NaN or
/// infinite weight.
LoadedUNet load_unet2d(const std::filesystem::path& folder, const LoadOptions& options = {});

/// Writes config.json and diffusion_pytorch_model.safetensors (float32), each atomically.
void save_unet2d(const std::filesystem::path& folder, const UNet2DConfig& config,
                 const NamedTensors& weights);

/// Writes a DDPMPipeline that diffusers loads as it is: model_index.json, unet/ and
/// scheduler/scheduler_config.json, whose "_class_name" names the scheduler (DataError without).
void save_pipeline(const std::filesystem::path& folder, const UNet2DConfig& config,
                   const NamedTensors& weights, const nlohmann::ordered_json& scheduler_config);

}  // namespace sfumato
