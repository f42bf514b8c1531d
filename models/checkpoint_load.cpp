#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/isfinite.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/io/json_file.h"
#include "sfumato/io/safetensors.h"
#include "sfumato/io/weights_file.h"
#include "sfumato/models/checkpoint_io.h"
#include "sfumato/models/model_folder.h"
#include "sfumato/models/tensor_file.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

constexpr const char* kClassTable = "class_embedding.weight";

SafetensorsSet open_weights(const fs::path& folder) {
  const fs::path file = find_weights(folder);
  const std::string name = file.filename().string();
  if (name.find("fp16") != std::string::npos || name.find("bf16") != std::string::npos)
    log_info(fmt::format("{}: only half-precision weights; computing in float32 from them",
                         folder.string()));
  return SafetensorsSet(file);
}

/// Attention keys of files before 2023.
std::string modern_key(const std::string& key) {
  if (key.find(".attentions.") == std::string::npos) return key;
  constexpr std::pair<const char*, const char*> kRenamed[] = {{".query.", ".to_q."},
                                                              {".key.", ".to_k."},
                                                              {".value.", ".to_v."},
                                                              {".proj_attn.", ".to_out.0."}};
  for (const auto& [old_name, new_name] : kRenamed)
    if (const std::size_t at = key.rfind(old_name); at != std::string::npos)
      return key.substr(0, at) + new_name + key.substr(at + std::strlen(old_name));
  return key;
}

/// What becomes of the class conditioning.
struct ClassPlan {
  UNet2DConfig config;              ///< of the network to be made
  bool drop = false;                ///< the file's class embedding is not loaded as it is
  std::optional<int64_t> new_rows;  ///< of a class table to be made
  int64_t reused = 0;               ///< rows at its start taken from the file's
};

ClassPlan plan_classes(UNet2DConfig config, const LoadOptions& options) {
  ClassPlan plan;
  const bool has_table = !config.class_embed_type && config.num_class_embeds.has_value();
  const int64_t old_rows = has_table ? *config.num_class_embeds : 0;
  if (options.class_rows && *options.class_rows < 0)
    throw UsageError("the number of classes cannot be negative");
  const bool same = !options.class_rows ||
                    (*options.class_rows == 0 ? !config.class_conditional()
                                              : has_table && *options.class_rows == old_rows);
  if (!same) {
    plan.drop = true;
    config.class_embed_type.reset();
    config.num_class_embeds.reset();
    if (*options.class_rows > 0) {
      config.num_class_embeds = plan.new_rows = *options.class_rows;
      if (options.reuse_class_rows) plan.reused = std::min(old_rows, *options.class_rows);
    }
  }
  plan.config = std::move(config);
  return plan;
}

void tell(const ClassPlan& plan, const LoadOptions& options, const fs::path& folder) {
  if (!plan.drop) return;
  if (!plan.new_rows) {
    log_info(fmt::format("{}: class conditioning removed", folder.string()));
    return;
  }
  std::string rows;
  if (plan.reused > 0)
    rows = fmt::format("{} pretrained rows times {}, ", plan.reused, options.class_embedding_scale);
  log_info(fmt::format("{}: new class embedding of {} rows: {}{} rows N(0, {}^2)", folder.string(),
                       *plan.new_rows, rows, *plan.new_rows - plan.reused,
                       options.class_embedding_std));
}

/// The file's tensors by their modern keys.
std::map<std::string, const TensorInfo*> modern_tensors(const SafetensorsSet& file) {
  std::map<std::string, const TensorInfo*> tensors;
  for (const std::string& name : file.names())
    if (!tensors.emplace(modern_key(name), &file.info(name)).second)
      throw DataError(fmt::format("{}: holds '{}' under its old and its new name",
                                  file.path().string(), modern_key(name)));
  return tensors;
}

void check_fit(const std::map<std::string, const TensorInfo*>& tensors,
               const std::vector<Parameter*>& parameters, const ClassPlan& plan,
               const fs::path& path) {
  std::vector<std::string> defects;
  std::set<std::string> known;
  for (const Parameter* parameter : parameters) {
    known.insert(parameter->name);
    if (plan.new_rows && parameter->name == kClassTable) continue;
    const auto found = tensors.find(parameter->name);
    if (found == tensors.end()) {
      defects.push_back(fmt::format("missing: {} [{}]", parameter->name,
                                    fmt::join(parameter->value.sizes().vec(), ", ")));
    } else if (parameter->value.sizes() != at::IntArrayRef(found->second->shape)) {
      defects.push_back(fmt::format("wrong shape: {} is [{}], config.json asks for [{}]",
                                    parameter->name, fmt::join(found->second->shape, ", "),
                                    fmt::join(parameter->value.sizes().vec(), ", ")));
    }
  }
  for (const auto& [name, info] : tensors)
    if (!known.contains(name) && !(plan.drop && name.starts_with("class_embedding.")))
      defects.push_back(fmt::format("superfluous: {}", name));
  if (!defects.empty())
    throw DataError(fmt::format("{}: the weights do not fit config.json:\n  {}", path.string(),
                                fmt::join(defects, "\n  ")));
}

void check_finite(const at::Tensor& value, const std::string& name, const fs::path& path) {
  if (!at::isfinite(value).all().item<bool>())
    throw DataError(
        fmt::format("{}: '{}' holds NaN or infinite weights; the file is damaged or "
                    "its training diverged",
                    path.string(), name));
}

void fill_class_table(at::Tensor& table, const ClassPlan& plan, const LoadOptions& options,
                      const std::map<std::string, const TensorInfo*>& tensors,
                      const fs::path& path) {
  table.normal_(0, options.class_embedding_std, at::detail::createCPUGenerator(options.seed));
  if (plan.reused == 0) return;
  const auto found = tensors.find(kClassTable);
  if (found == tensors.end() || found->second->shape.size() != 2 ||
      found->second->shape[0] < plan.reused || found->second->shape[1] != table.size(1))
    throw DataError(fmt::format("{}: no '{}' of width {} whose rows could be reused", path.string(),
                                kClassTable, table.size(1)));
  const at::Tensor old_table = to_tensor(*found->second).to(at::kFloat);
  check_finite(old_table, kClassTable, path);
  table.narrow(0, 0, plan.reused)
      .copy_(old_table.narrow(0, 0, plan.reused).mul(options.class_embedding_scale));
}

}  // namespace

LoadedUNet load_unet2d(const fs::path& folder, const LoadOptions& options) {
  LoadedUNet loaded;
  const ModelFolder place = find_model_folder(folder);
  loaded.folder = place.unet;
  loaded.scheduler_config = place.scheduler_config;
  const fs::path config_path = loaded.folder / "config.json";
  const ClassPlan plan = plan_classes(
      UNet2DConfig::from_json(read_python_json(config_path), config_path.string()), options);
  const SafetensorsSet file = open_weights(loaded.folder);
  const std::map<std::string, const TensorInfo*> tensors = modern_tensors(file);

  loaded.network = std::make_unique<UNet2D>(plan.config);
  const std::vector<Parameter*> parameters = loaded.network->parameters();
  check_fit(tensors, parameters, plan, file.path());
  tell(plan, options, loaded.folder);

  const at::NoGradGuard no_grad;
  for (Parameter* parameter : parameters) {
    if (plan.new_rows && parameter->name == kClassTable) {
      fill_class_table(parameter->value, plan, options, tensors, file.path());
      continue;
    }
    const at::Tensor value = to_tensor(*tensors.at(parameter->name)).to(at::kFloat);
    check_finite(value, parameter->name, file.path());
    parameter->value.copy_(value);
  }
  return loaded;
}

}  // namespace sfumato
