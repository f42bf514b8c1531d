#include "sfumato/generate/diffusion/network.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "sfumato/core/error.h"
#include "sfumato/generate/families.h"
#include "sfumato/io/json_file.h"
#include "sfumato/models/checkpoint_io.h"

namespace sfumato {
namespace {

constexpr const char* kClassTable = "class_embedding.weight";

Parameter* find_parameter(UNet2D& network, const std::string& name) {
  for (Parameter* parameter : network.parameters())
    if (parameter->name == name) return parameter;
  return nullptr;
}

/// With model.reuse_class_rows the last pretrained row, "no label", stays the last row.
void keep_null_row(UNet2D& network, const Config& config) {
  if (!config.model.reuse_class_rows() || config.diffusion.label_dropout() == 0) return;
  const LoadedUNet original = load_unet2d(config.model.init());
  const Parameter* from = find_parameter(*original.network, kClassTable);
  Parameter* to = find_parameter(network, kClassTable);
  if (from == nullptr || to == nullptr || from->value.size(0) == to->value.size(0)) return;
  const at::NoGradGuard no_grad;
  to->value.select(0, -1).copy_(
      from->value.select(0, -1).mul(config.model.class_embedding_scale()));
}

std::unique_ptr<UNet2D> pretrained(const Config& config) {
  LoadOptions options;
  options.class_rows = class_rows(config);
  options.class_embedding_std = config.model.class_embedding_std();
  options.class_embedding_scale = config.model.class_embedding_scale();
  options.reuse_class_rows = config.model.reuse_class_rows();
  options.seed = static_cast<uint64_t>(config.run.seed());
  std::unique_ptr<UNet2D> network = load_unet2d(config.model.init(), options).network;
  keep_null_row(*network, config);
  return network;
}

std::unique_ptr<UNet2D> from_scratch(const Config& config) {
  if (config.model.config().empty())
    throw UsageError(
        "no network: set model.init to a pretrained folder or model.config to a config.json");
  UNet2DConfig network_config = UNet2DConfig::from_json(read_json(config.model.config()));
  const int64_t rows = class_rows(config);
  network_config.num_class_embeds = rows > 0 ? std::optional<int64_t>(rows) : std::nullopt;
  auto network = std::make_unique<UNet2D>(network_config);
  network->set_class_embedding_std(config.model.class_embedding_std());
  network->initialise(static_cast<uint64_t>(config.run.seed()));
  return network;
}

}  // namespace

int64_t class_rows(const Config& config) {
  const int64_t classes = config.data.num_classes();
  return classes > 0 && config.diffusion.label_dropout() > 0 ? classes + 1 : classes;
}

std::unique_ptr<UNet2D> make_network(const Config& config) {
  std::unique_ptr<UNet2D> network =
      config.model.init().empty() ? from_scratch(config) : pretrained(config);
  freeze_unmatched(network->parameters(), config.model.trainable());
  return network;
}

void check_network_config(const nlohmann::json& config, const std::string& what) {
  (void)UNet2DConfig::from_json(config, what);
}

std::string edm_misfit(const UNet2DConfig& network) {
  if (network.time_embedding_type == "positional") return {};
  return fmt::format(
      "the network's time_embedding_type is {}, and diffusion.parameterization=edm tells it a "
      "quarter of log sigma, which only positional embeds",
      network.time_embedding_type);
}

std::string network_misfit(const UNet2DConfig& network, const ImageShape& images,
                           const Config& config) {
  if (images.channels != network.in_channels)
    return fmt::format("images have {} channels, the network takes {}", images.channels,
                       network.in_channels);
  if (network.out_channels != network.in_channels)
    return fmt::format("the network makes {} channels from {}", network.out_channels,
                       network.in_channels);
  if (network.time_embedding_type == "fourier")
    return "the network's time_embedding_type is fourier, which takes log sigma and has no value "
           "at timestep 0";
  if (config.diffusion.parameterization() == Parameterization::kEdm)
    if (std::string misfit = edm_misfit(network); !misfit.empty()) return misfit;
  const std::vector<std::string>& overruled = config.model.overrule_init();
  const bool size_is_given = std::ranges::find(overruled, "data.image_size") != overruled.end();
  if (!config.model.init().empty() && network.sample_size && !size_is_given &&
      *network.sample_size != std::array{images.height, images.width})
    return fmt::format(
        "images are {}x{}, the network of model.init was trained on {}x{} (sample_size); where "
        "that is on purpose, set model.overrule_init=[data.image_size]",
        images.height, images.width, (*network.sample_size)[0], (*network.sample_size)[1]);
  const int64_t multiple = network.size_multiple();
  if (images.height % multiple != 0 || images.width % multiple != 0)
    return fmt::format("images of {}x{} do not divide by {}, which the network's levels need",
                       images.height, images.width, multiple);
  return {};
}

std::vector<double> rate_scales(const Config& config, const std::vector<Parameter*>& parameters) {
  std::vector<double> scales;
  for (const Parameter* parameter : parameters)
    scales.push_back(parameter->name == kClassTable
                         ? config.optimizer.class_embedding_learning_rate_scale()
                         : 1.0);
  return scales;
}

}  // namespace sfumato
