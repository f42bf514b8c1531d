#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "sfumato/generate/generator.h"
#include "sfumato/generate/placement.h"
#include "sfumato/models/tensor_file.h"

namespace sfumato {

struct Config;
struct NetworkDescription;

/// A family of generators: how one is made, recognised and opened.
struct Family {
  std::string name;  ///< what model.family says; its settings are the section of this name

  /// Completes a configuration by what the files of model.init say: everything for training; with
  /// `resume` refuses what the run in run.dir was not started with.
  std::function<void(Config& config, bool resume)> adopt_settings;
  /// The same for what prepare needs: size and channels of the images.
  std::function<void(Config& config)> adopt_image_settings;
  /// The generator that a configuration trains: from model.init, or from model.config and run.seed;
  /// parameters that match no pattern of model.trainable are frozen. UsageError for a pattern
  /// without a match, DataError for bad files.
  std::function<std::unique_ptr<Generator>(const Config& config, const Placement& placement)> make;
  /// All that make() takes from a folder that model.init names: what is not among it is not judged.
  /// DataError for bad files.
  std::function<PretrainedWeights(const std::filesystem::path& folder)> load_weights;

  /// What a folder of this family holds, for people: "painter/config.json".
  std::string layout;
  /// Whether a folder, a release for one, holds that. It looks into files whose names other
  /// families may use as well; DataError for one of these that cannot be read.
  std::function<bool(const std::filesystem::path& folder)> holds;
  /// Opens such a folder for drawing and completes the settings of `config` that nobody has set
  /// by what its files say. DataError for bad files and for what cannot be drawn from.
  std::function<std::unique_ptr<Generator>(const std::filesystem::path& folder, Config& config,
                                           const Placement& placement)>
      open;

  // Networks by their config.json, for `inspect` and benchmarks; a family may leave these out ----

  /// Names of the folders that its networks lie in, side by side; the one that draws comes first.
  std::vector<std::string> network_folders = {};
  /// Whether a config.json is of a network of this family, by what it calls itself: in one whose
  /// other keys are wrong as well.
  std::function<bool(const nlohmann::json& config)> knows_network = {};
  /// What one says that knows_network() knows (generate/network_description.h). DataError, which
  /// begins with `what`, for mistakes in it.
  std::function<NetworkDescription(const nlohmann::json& config, const std::string& what)>
      describe_network = {};
  /// Whether images are drawn in steps, each through the network, instead of in one pass.
  bool draws_in_steps = false;
  /// Networks with random weights, of their config.json: of one, or of several by their folders'
  /// names, {"generator": {...}, ...}. `draws`: network inputs of each example in a private step;
  /// 0: for drawing images alone. UsageError for a description that lacks what this takes.
  std::function<std::unique_ptr<Generator>(const nlohmann::json& networks,
                                           const Placement& placement, std::uint64_t seed,
                                           std::int64_t draws)>
      random = {};

  /// Settings outside the sections of families that its networks have no use for.
  std::vector<std::string> without_effect = {};
};

/// The table of families, in the order in which folders are looked at.
const std::vector<Family>& families();
/// Puts one more behind the others: for tests, before anybody looks at the table (it moves the
/// rows). std::logic_error for a name that is there.
void add_family(Family family);
/// That of model.family; UsageError, with the place where it is set and the names that there are,
/// for one that is not in the table.
const Family& family_of(const Config& config);
/// The first family that holds a folder; null for none. DataError as Family::holds.
const Family* family_in(const std::filesystem::path& folder);
/// What folders of each family hold: "diffusion: ...; adversarial: painter/config.json".
std::string known_layouts();

/// The generator that `config` trains.
std::unique_ptr<Generator> make_generator(const Config& config, const Placement& placement);
/// A generator for drawing: Family::open. DataError where the folder is of no family, with what was
/// looked for; UsageError as family_of.
std::unique_ptr<Generator> open_generator(const std::filesystem::path& folder, Config& config,
                                          const Placement& placement);

/// What model.init says, for the configuration's family; nothing where it is empty. This is where a
/// configuration first meets the table, so model.family is checked in any case, as family_of, and
/// settings in the sections of other families, or without effect in this one, are refused unless
/// they are their defaults (UsageError, with the place of each) or the run is resumed.
void adopt_pretrained_settings(Config& config, bool resume = false);
/// The same for the images alone, where they are prepared before there may be a network.
void adopt_pretrained_image_settings(Config& config);

/// Freezes the parameters that match none of the glob patterns. UsageError for a pattern that
/// matches no parameter.
void freeze_unmatched(const std::vector<Parameter*>& parameters,
                      const std::vector<std::string>& patterns);

}  // namespace sfumato
