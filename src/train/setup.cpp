#include "sfumato/train/setup.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "sfumato/core/error.h"
#include "sfumato/core/printable.h"
#include "sfumato/core/text.h"
#include "sfumato/data/record_store.h"
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
  initialise(*network, static_cast<uint64_t>(config.run.seed()),
             config.model.class_embedding_std());
  return network;
}

void freeze_unmatched(UNet2D& network, const std::vector<std::string>& patterns) {
  std::vector<bool> used(patterns.size(), false);
  std::vector<std::string> names;
  for (Parameter* parameter : network.parameters()) {
    names.push_back(parameter->name);
    bool train = false;
    for (size_t i = 0; i < patterns.size(); ++i) {
      if (::fnmatch(patterns[i].c_str(), parameter->name.c_str(), 0) != 0) continue;
      train = used[i] = true;
    }
    if (!train) set_trainable(*parameter, false);
  }
  for (size_t i = 0; i < patterns.size(); ++i)
    if (!used[i])
      throw UsageError(fmt::format("model.trainable: no parameter matches '{}'{}", patterns[i],
                                   did_you_mean(patterns[i], names)));
}

}  // namespace

int64_t class_rows(const Config& config) {
  const int64_t classes = config.data.num_classes();
  return classes > 0 && config.diffusion.label_dropout() > 0 ? classes + 1 : classes;
}

std::unique_ptr<UNet2D> make_network(const Config& config) {
  std::unique_ptr<UNet2D> network =
      config.model.init().empty() ? from_scratch(config) : pretrained(config);
  freeze_unmatched(*network, config.model.trainable());
  return network;
}

void check_store_fits(const RecordStore& store, const UNet2DConfig& network, const Config& config) {
  const auto refuse = [&](const std::string& what) {
    throw DataError(
        fmt::format("record store '{}': {}; prepare the images again with other "
                    "data.* settings or choose another network",
                    store.path().string(), what));
  };
  if (store.channels() != network.in_channels)
    refuse(fmt::format("images have {} channels, the network takes {}", store.channels(),
                       network.in_channels));
  if (network.out_channels != network.in_channels)
    refuse(fmt::format("the network makes {} channels from {}", network.out_channels,
                       network.in_channels));
  if (network.time_embedding_type == "fourier")
    refuse(
        "the network's time_embedding_type is fourier, which takes log sigma and has no value at "
        "timestep 0");
  const std::vector<std::string>& overruled = config.model.overrule_init();
  const bool size_is_given = std::ranges::find(overruled, "data.image_size") != overruled.end();
  if (!config.model.init().empty() && network.sample_size && !size_is_given &&
      *network.sample_size != std::array{store.height(), store.width()})
    refuse(fmt::format(
        "images are {}x{}, the network of model.init was trained on {}x{} (sample_size); where "
        "that is on purpose, set model.overrule_init=[data.image_size]",
        store.height(), store.width(), (*network.sample_size)[0], (*network.sample_size)[1]));
  const int64_t multiple = network.size_multiple();
  if (store.height() % multiple != 0 || store.width() % multiple != 0)
    refuse(fmt::format("images of {}x{} do not divide by {}, which the network's levels need",
                       store.height(), store.width(), multiple));
  if (store.num_classes() != config.data.num_classes())
    refuse(fmt::format("it holds {} classes, data.num_classes is {}", store.num_classes(),
                       config.data.num_classes()));
  const std::vector<std::string>& names = config.data.class_names();
  for (std::size_t c = 0; c < names.size(); ++c)
    if (names[c] != store.class_names()[c])
      refuse(fmt::format("its class {} is '{}', in data.class_names '{}'", c,
                         printable(store.class_names()[c]), printable(names[c])));
}

void adopt_class_names(Config& config) {
  const RecordStore store = RecordStore::open(config.data.store());
  DataSettings& data = config.data;
  const bool numbers = store.layout().class_names_from == "numbers";
  if (!data.class_names().empty() || numbers || store.num_classes() != data.num_classes() ||
      store.num_classes() == 0)
    return;
  data.class_names.set(store.class_names(), "the record store");
}

ClipOptions clip_options(const Config& config) {
  return {config.mechanism.clipping(), config.mechanism.clip_norm_l2(),
          config.mechanism.automatic_gamma()};
}

StepOptions step_options(const Config& config) {
  return {config.performance.layer_algorithm(),
          // Not on the CPU: asking for a GPU loads CUDA.
          std::make_shared<Tuner>(config.performance.device() == ComputeDevice::kCuda
                                      ? Tuner::default_memory()
                                      : std::filesystem::path{}),
          config.performance.cuda_graph()};
}

OptimizerOptions optimizer_options(const Config& config) {
  const OptimizerSettings& o = config.optimizer;
  OptimizerOptions options;
  options.kind = o.name();
  options.beta1 = o.beta1();
  options.beta2 = o.beta2();
  options.eps = o.eps();
  options.weight_decay = o.weight_decay();
  options.momentum = o.momentum();
  return options;
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
