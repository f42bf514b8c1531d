#include "sfumato/models/gan_networks.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/isfinite.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "models/dcgan/discriminator.h"
#include "models/dcgan/generator.h"
#include "models/gan_config.h"
#include "models/resnet_gan/discriminator.h"
#include "models/resnet_gan/generator.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/text.h"
#include "sfumato/io/json_file.h"
#include "sfumato/io/safetensors.h"
#include "sfumato/io/weights_file.h"
#include "sfumato/models/tensor_file.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

/// One kind of network by its "_class_name": makes a generator or a discriminator.
struct Kind {
  const char* name;
  std::unique_ptr<GeneratorNetwork> (*generator)(GanConfig&);
  std::unique_ptr<DiscriminatorNetwork> (*discriminator)(GanConfig&);
};

template <typename Base, typename Network>
std::unique_ptr<Base> made(GanConfig& config) {
  return std::make_unique<Network>(config);
}

const Kind kKinds[] = {
    {DcganGenerator::kName, made<GeneratorNetwork, DcganGenerator>, nullptr},
    {DcganDiscriminator::kName, nullptr, made<DiscriminatorNetwork, DcganDiscriminator>},
    {ResnetGenerator::kName, made<GeneratorNetwork, ResnetGenerator>, nullptr},
    {ResnetDiscriminator::kName, nullptr, made<DiscriminatorNetwork, ResnetDiscriminator>},
};

/// Null for anything but the _class_name of a row.
const Kind* kind_of(const nlohmann::json& config) {
  if (!config.is_object()) return nullptr;
  const auto name = config.find("_class_name");
  for (const Kind& kind : kKinds)
    if (name != config.end() && *name == kind.name) return &kind;
  return nullptr;
}

/// The row of `config`, whose `maker` ("generator", "discriminator") is the one wanted.
template <typename Maker>
const Kind& kind_with(Maker Kind::*maker, const char* wanted, const char* other,
                      const nlohmann::json& config, const std::string& what) {
  if (const Kind* kind = kind_of(config)) {
    if (kind->*maker != nullptr) return *kind;
    throw DataError(fmt::format("{}: _class_name: {} is a {}, and a {} belongs here", what,
                                kind->name, other, wanted));
  }
  std::vector<std::string> names;
  for (const Kind& kind : kKinds)
    if (kind.*maker != nullptr) names.emplace_back(kind.name);
  if (!config.is_object() || !config.contains("_class_name"))
    throw DataError(fmt::format("{}: _class_name: is missing; a {} is one of {}", what, wanted,
                                fmt::join(names, ", ")));
  const nlohmann::json& value = config.at("_class_name");
  const std::string name = value.is_string() ? value.get<std::string>() : value.dump();
  throw DataError(fmt::format("{}: _class_name: '{}' is no {}; these are {}{}", what, name, wanted,
                              fmt::join(names, ", "), did_you_mean(name, names)));
}

std::unique_ptr<GeneratorNetwork> generator_from(const nlohmann::json& json,
                                                 const std::string& what) {
  const Kind& kind = kind_with(&Kind::generator, "generator", "discriminator", json, what);
  GanConfig config(json, what);
  return kind.generator(config);
}

std::unique_ptr<DiscriminatorNetwork> discriminator_from(const nlohmann::json& json,
                                                         const std::string& what) {
  const Kind& kind = kind_with(&Kind::discriminator, "discriminator", "generator", json, what);
  GanConfig config(json, what);
  return kind.discriminator(config);
}

void check_fit(const SafetensorsSet& file, const NamedTensors& state) {
  std::vector<std::string> defects;
  std::set<std::string> known;
  for (const auto& [name, tensor] : state) {
    known.insert(name);
    if (!file.contains(name))
      defects.push_back(fmt::format("missing: {} [{}]", name, fmt::join(tensor.sizes(), ", ")));
    else if (tensor.sizes() != at::IntArrayRef(file.info(name).shape))
      defects.push_back(fmt::format("wrong shape: {} is [{}], config.json asks for [{}]", name,
                                    fmt::join(file.info(name).shape, ", "),
                                    fmt::join(tensor.sizes(), ", ")));
  }
  for (const std::string& name : file.names())
    if (!known.contains(name)) defects.push_back(fmt::format("superfluous: {}", name));
  if (!defects.empty())
    throw DataError(fmt::format("{}: the weights do not fit config.json:\n  {}",
                                file.path().string(), fmt::join(defects, "\n  ")));
}

void read_weights(const fs::path& folder, Module& network) {
  const SafetensorsSet file(find_weights(folder));
  const NamedTensors state = named_state(network);
  check_fit(file, state);
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : state) {
    const at::Tensor value = to_tensor(file.info(name));
    if (!at::isfinite(value).all().item<bool>())
      throw DataError(
          fmt::format("{}: '{}' holds NaN or infinite weights; the file is damaged or "
                      "its training diverged",
                      file.path().string(), name));
    tensor.copy_(value);
  }
}

}  // namespace

std::unique_ptr<GeneratorNetwork> make_generator_network(const nlohmann::json& config,
                                                         const std::string& what) {
  return generator_from(config, what);
}

std::unique_ptr<DiscriminatorNetwork> make_discriminator_network(const nlohmann::json& config,
                                                                 const std::string& what) {
  return discriminator_from(config, what);
}

std::unique_ptr<GeneratorNetwork> load_generator_network(const fs::path& folder) {
  const fs::path path = folder / "config.json";
  std::unique_ptr<GeneratorNetwork> network = generator_from(read_python_json(path), path.string());
  read_weights(folder, *network);
  return network;
}

std::unique_ptr<DiscriminatorNetwork> load_discriminator_network(const fs::path& folder) {
  const fs::path path = folder / "config.json";
  std::unique_ptr<DiscriminatorNetwork> network =
      discriminator_from(read_python_json(path), path.string());
  read_weights(folder, *network);
  return network;
}

void save_gan_network(const fs::path& folder, const nlohmann::ordered_json& config,
                      const NamedTensors& weights) {
  NamedTensors written;
  for (const auto& [name, weight] : weights) {
    const at::Tensor value = weight.detach().to(at::kCPU);
    written.emplace_back(name, value.is_floating_point() ? value.to(at::kFloat) : value);
  }
  make_folder(folder);
  write_tensor_file(folder / "diffusion_pytorch_model.safetensors", written);
  write_json_atomic(folder / "config.json", config);
}

bool describes_generator_network(const nlohmann::json& config) {
  const Kind* kind = kind_of(config);
  return kind != nullptr && kind->generator != nullptr;
}

bool describes_discriminator_network(const nlohmann::json& config) {
  const Kind* kind = kind_of(config);
  return kind != nullptr && kind->discriminator != nullptr;
}

void require_same_images(const GeneratorNetwork& generator,
                         const DiscriminatorNetwork& discriminator, const std::string& what) {
  const ImageShape made = generator.image_shape(), seen = discriminator.image_shape();
  if (made.channels != seen.channels || made.height != seen.height || made.width != seen.width)
    throw DataError(fmt::format(
        "{}: the generator makes images of {} x {} x {} and the discriminator takes {} x {} x {} "
        "(channels, height, width): sample_size, out_channels and in_channels must agree",
        what, made.channels, made.height, made.width, seen.channels, seen.height, seen.width));
  if (generator.num_classes() != discriminator.num_classes())
    throw DataError(
        fmt::format("{}: the generator has {} classes and the discriminator {}: "
                    "num_class_embeds must agree",
                    what, generator.num_classes(), discriminator.num_classes()));
}

}  // namespace sfumato
