#pragma once
#include <filesystem>
#include <memory>

#include "sfumato/models/gan_networks.h"

namespace sfumato {

struct Config;

/// Where both networks lie in a folder.
inline constexpr const char *kGeneratorFolder = "generator",
                            *kDiscriminatorFolder = "discriminator";

struct GanNetworks {
  std::unique_ptr<GeneratorNetwork> generator;
  std::unique_ptr<DiscriminatorNetwork> discriminator;
};

/// generator/ of a folder; empty if there is none.
std::filesystem::path generator_within(const std::filesystem::path& folder);
/// Where the generator of a folder lies: in generator/, or in the folder itself. DataError for one
/// without either.
std::filesystem::path generator_folder(const std::filesystem::path& folder);
/// Where its discriminator lies; empty if there is none.
std::filesystem::path discriminator_folder(const std::filesystem::path& folder);

/// The networks that a configuration trains, from model.init or from gan.generator_config and
/// gan.discriminator_config with run.seed. Tables of classes of pretrained ones are fitted to
/// data.num_classes: new rows, or with model.reuse_class_rows their first ones. UsageError where
/// the settings leave a network out or name it twice.
GanNetworks make_gan_networks(const Config& config);

}  // namespace sfumato
