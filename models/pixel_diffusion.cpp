// Kinds of networks that pictures cannot be drawn from, or trained with, as this program does it.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/io/json_file.h"
#include "sfumato/models/model_folder.h"
#include "sfumato/models/unet2d_config.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

constexpr const char* kLatent = "its network makes latents of an autoencoder and not pictures";
constexpr const char* kRemedy =
    "choose a network of pictures; if this one is, put its config.json and weights into a folder "
    "of their own, with its scheduler_config.json";

[[noreturn]] void refuse(const fs::path& place, const std::string& kind) {
  throw DataError(
      fmt::format("'{}': {}; only pixel diffusion networks (DDPM) are trained and "
                  "sampled: {}",
                  place.string(), kind, kRemedy));
}

/// What a component of a pipeline other than network and scheduler says about the network.
std::string meaning_of(const std::string& component, const std::string& class_name) {
  const auto has = [&](std::string_view text) {
    return component.find(text) != std::string::npos || class_name.find(text) != std::string::npos;
  };
  if (has("vae") || has("VQ") || has("vq") || has("movq") || has("Autoencoder") ||
      has("autoencoder") || has("first_stage"))
    return kLatent;
  if (has("text") || has("token") || has("bert") || has("Bert") || has("CLIP") || has("T5"))
    return "its network is told in words what to draw";
  return "its network is a part of something larger";
}

/// Pipelines of a network alone, which are no DDPM all the same.
std::string other_family(const std::string& pipeline) {
  const auto has = [&](std::string_view text) { return pipeline.find(text) != std::string::npos; };
  if (has("ScoreSde")) return "score-SDE networks take log sigma and predict a score";
  if (has("KarrasVe")) return "networks of this pipeline take sigma and predict a score";
  if (has("Consistency")) return "consistency models jump to the picture in one step";
  if (has("LDM") || has("LatentDiffusion") || has("StableDiffusion")) return kLatent;
  if (has("DanceDiffusion") || has("Audio")) return "it makes sounds and not pictures";
  if (has("SuperRes") || has("Upscale") || has("Inpaint"))
    return "its network repairs or enlarges a picture that it is given";
  return {};
}

void check_index(const fs::path& path) {
  const nlohmann::json index = read_python_json(path);
  if (!index.is_object()) throw DataError(fmt::format("'{}' is not a JSON object", path.string()));
  std::string pipeline = "unnamed pipeline";
  if (index.contains("_class_name") && index["_class_name"].is_string())
    pipeline = index["_class_name"].get<std::string>();
  for (const auto& [name, value] : index.items()) {
    if (name.starts_with("_") || !value.is_array() || value.size() != 2) continue;
    if (!value[1].is_string()) continue;  // [null, null]: an optional part that is not there
    const auto class_name = value[1].get<std::string>();
    if (name.starts_with("unet") || class_name.ends_with("Scheduler")) continue;
    refuse(path, fmt::format("a {} with {} ({}): {}", pipeline, name, class_name,
                             meaning_of(name, class_name)));
  }
  if (const std::string family = other_family(pipeline); !family.empty())
    refuse(path, fmt::format("a {}: {}", pipeline, family));
  constexpr std::array kKnown = {"DDPMPipeline", "DDIMPipeline", "PNDMPipeline", "RePaintPipeline",
                                 "unnamed pipeline"};
  if (std::ranges::find(kKnown, pipeline) == kKnown.end())
    log_warning(
        fmt::format("'{}': a {}, which this program does not know; its network is taken "
                    "for a pixel diffusion network (DDPM)",
                    path.string(), pipeline));
}

/// A folder copied without its index still has its neighbours.
void check_neighbours(const fs::path& pipeline) {
  for (const char* name : {"vae", "vqvae", "movq", "vqgan", "autoencoder", "first_stage_model",
                           "vae_encoder", "text_encoder", "image_encoder"})
    if (fs::is_directory(pipeline / name) && !fs::is_empty(pipeline / name))
      refuse(pipeline,
             fmt::format("it holds '{}' beside the network: {}", name, meaning_of(name, "")));
}

void check_network(const fs::path& path, const UNet2DConfig& network) {
  const int64_t in = network.in_channels, out = network.out_channels;
  if (network.time_embedding_type == "fourier")
    refuse(path, "time_embedding_type is fourier: a score-SDE network, which takes log sigma");
  if (out == 2 * in && (in == 1 || in == 3))
    refuse(path, fmt::format("out_channels is {}, twice in_channels: it predicts the variance as "
                             "well, a learned variance, which is not supported",
                             out));
  if (in != out)
    refuse(path, fmt::format("in_channels is {} and out_channels {}: it takes another picture, as "
                             "for inpainting or super-resolution, beside the noisy one",
                             in, out));
  if (in != 1 && in != 3)
    refuse(path, fmt::format("in_channels is {}, neither 1 (grey) nor 3 (RGB): latents of an "
                             "autoencoder, or pictures with an alpha channel",
                             in));
}

}  // namespace

void require_pixel_diffusion(const ModelFolder& folder, const UNet2DConfig& network) {
  if (!folder.index.empty()) check_index(folder.index);
  // Neighbours count only in the folder of a pipeline: 'models/vae' has nothing to do with
  // 'models/net'.
  const fs::path unet = fs::absolute(folder.unet).lexically_normal();
  const fs::path own = unet.has_filename() ? unet : unet.parent_path();
  if (own.filename().string().starts_with("unet")) check_neighbours(own.parent_path());
  check_neighbours(own);
  check_network(folder.unet / "config.json", network);
}

}  // namespace sfumato
