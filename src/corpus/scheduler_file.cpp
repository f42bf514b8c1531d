#include "corpus/scheduler_file.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "sfumato/config/config.h"
#include "sfumato/core/error.h"
#include "sfumato/io/json_file.h"

namespace sfumato {
namespace {

/// Sets `setting` to json[key] if the key is there and nobody has set the setting.
template <typename T>
void take(const nlohmann::json& json, const char* key, const std::string& provenance,
          Setting<T>& setting) {
  if (!setting.is_default() || !json.contains(key) || json[key].is_null()) return;
  try {
    setting.set(json[key].get<T>(), provenance);
  } catch (const nlohmann::json::exception&) {
    throw DataError(fmt::format("'{}': {} has the wrong type; {} is a {}", provenance, key,
                                setting.key(), setting.type_name()));
  } catch (const UsageError& error) {
    throw DataError(fmt::format("'{}': {} cannot be used: {}", provenance, key, error.what()));
  }
}

/// Families whose noise does not follow sqrt(abar), sqrt(1 - abar).
void refuse_other_families(const nlohmann::json& json, const std::string& provenance) {
  const std::string name = json.value("_class_name", std::string("unnamed"));
  if (json.contains("sigma_max") || name.starts_with("FlowMatch"))
    throw DataError(
        fmt::format("'{}' is a {}: such networks cannot be sampled with ddpm or ddim; "
                    "replace the file if the network was trained otherwise",
                    provenance, name));
  if (json.contains("trained_betas") && !json["trained_betas"].is_null())
    throw DataError(fmt::format("'{}' has trained_betas, which are not supported", provenance));
  if (json.contains("thresholding") && json["thresholding"] == true)
    throw DataError(
        fmt::format("'{}' asks for dynamic thresholding, which is not supported; set "
                    "thresholding to false in it",
                    provenance));
}

}  // namespace

void take_scheduler_file(const std::filesystem::path& path, Config& config) {
  const nlohmann::json json = read_json(path);
  const std::string provenance = path.string();
  if (!json.is_object()) throw DataError(fmt::format("'{}' is not a JSON object", provenance));
  refuse_other_families(json, provenance);
  DiffusionSettings& diffusion = config.diffusion;
  take(json, "beta_schedule", provenance, diffusion.schedule);
  take(json, "beta_start", provenance, diffusion.beta_start);
  take(json, "beta_end", provenance, diffusion.beta_end);
  take(json, "num_train_timesteps", provenance, diffusion.num_train_timesteps);
  take(json, "prediction_type", provenance, diffusion.prediction);
  take(json, "rescale_betas_zero_snr", provenance, diffusion.rescale_betas_zero_snr);
  take(json, "clip_sample", provenance, config.sample.clip_sample);
  take(json, "clip_sample_range", provenance, config.sample.clip_sample_range);
  take(json, "variance_type", provenance, config.sample.variance);
}

}  // namespace sfumato
