#pragma once
#include <filesystem>
#include <string>

namespace sfumato {

struct UNet2DConfig;

/// Where the parts of a diffusers folder are. Named may be a pipeline, the network's own folder
/// within one, a flat folder, or a checkpoint-N of diffusers' training scripts.
struct ModelFolder {
  std::filesystem::path named;
  std::filesystem::path unet;              ///< holds config.json and the weights
  std::filesystem::path scheduler_config;  ///< scheduler_config.json; empty if there is none
  std::filesystem::path index;             ///< model_index.json of its pipeline; empty if none
};

/// The network is `folder`/unet (or /unet_ema where there is no other), else `folder` itself. Its
/// scheduler_config.json is the first found of: the pipeline's component (scheduler/), the folder's
/// own, beside the network's folder (../scheduler/, ../scheduler_config.json where that folder is
/// called unet...), above a checkpoint-N. DataError if there is no network.
ModelFolder find_model_folder(const std::filesystem::path& folder);

/// Whether the network turns a noisy picture of 1 or 3 channels into one of the same size, at a
/// timestep, and nothing else: what training and sampling here are about. DataError, naming the
/// kind and where it says so: pipelines with an autoencoder or another component, score-SDE,
/// consistency and other pipelines, networks of latents, of two pictures (inpainting,
/// super-resolution), with a learned variance, or conditioned on log sigma.
void require_pixel_diffusion(const ModelFolder& folder, const UNet2DConfig& network);

}  // namespace sfumato
