#include "sfumato/run/checkpoint.h"

#include <fmt/format.h>

#include <map>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/text.h"
#include "sfumato/io/json_file.h"
#include "sfumato/models/tensor_file.h"

namespace sfumato {
namespace {

constexpr const char* kDone = "DONE";
constexpr const char* kPrefix = "step_";

/// Complete checkpoints by step.
std::map<int64_t, std::filesystem::path> complete_checkpoints(const std::filesystem::path& folder) {
  std::map<int64_t, std::filesystem::path> found;
  if (!std::filesystem::is_directory(folder)) return found;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kPrefix) || !std::filesystem::exists(entry.path() / kDone)) continue;
    if (const auto step = parse_int64(name.substr(5))) found.emplace(*step, entry.path());
  }
  return found;
}

NamedTensors read_tensors(const std::filesystem::path& path, const nlohmann::json& order) {
  const SafetensorsFile file(path);
  NamedTensors tensors;
  for (const auto& name : order)
    tensors.emplace_back(name.get<std::string>(), to_tensor(file.info(name.get<std::string>())));
  return tensors;
}

nlohmann::json names_of(const NamedTensors& tensors) {
  nlohmann::json names = nlohmann::json::array();
  for (const auto& [name, tensor] : tensors) names.push_back(name);
  return names;
}

}  // namespace

void write_checkpoint(const std::filesystem::path& folder, const Checkpoint& checkpoint) {
  const std::filesystem::path path = folder / fmt::format("{}{:06}", kPrefix, checkpoint.step);
  std::error_code ignored;
  // What is there of the same step; the mark goes first, so that half of it does not look whole.
  std::filesystem::remove(path / kDone, ignored);
  std::filesystem::remove_all(path, ignored);
  make_folder(path, 0700);
  write_tensor_file(path / "model.safetensors", checkpoint.model, 0600);
  write_tensor_file(path / "ema.safetensors", checkpoint.ema, 0600);
  write_tensor_file(path / "optimizer.safetensors", checkpoint.optimizer, 0600);
  nlohmann::json state = checkpoint.state;
  state["step"] = checkpoint.step;
  state["tensors"] = {{"model", names_of(checkpoint.model)},
                      {"ema", names_of(checkpoint.ema)},
                      {"optimizer", names_of(checkpoint.optimizer)}};
  write_json_atomic(path / "state.json", state, 2, 0600);
  write_file_atomic(path / kDone, "", 0600);
  fsync_path(folder);
}

std::optional<std::filesystem::path> newest_checkpoint(const std::filesystem::path& folder) {
  const auto found = complete_checkpoints(folder);
  if (found.empty()) return std::nullopt;
  return found.rbegin()->second;
}

Checkpoint read_checkpoint(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path / kDone))
    throw DataError(fmt::format("'{}' is no complete checkpoint (its DONE mark is missing)",
                                path.string()));
  Checkpoint checkpoint;
  try {
    checkpoint.state = read_json(path / "state.json");
    checkpoint.step = checkpoint.state.at("step").get<int64_t>();
    const nlohmann::json& tensors = checkpoint.state.at("tensors");
    checkpoint.model = read_tensors(path / "model.safetensors", tensors.at("model"));
    checkpoint.ema = read_tensors(path / "ema.safetensors", tensors.at("ema"));
    checkpoint.optimizer = read_tensors(path / "optimizer.safetensors", tensors.at("optimizer"));
  } catch (const nlohmann::json::exception& error) {
    throw DataError(fmt::format("'{}' is damaged: {}", (path / "state.json").string(),
                                error.what()));
  }
  return checkpoint;
}

void prune_checkpoints(const std::filesystem::path& folder, int64_t keep_last,
                       int64_t keep_every) {
  const auto complete = complete_checkpoints(folder);
  std::error_code ignored;
  if (std::filesystem::is_directory(folder)) {
    for (const auto& entry : std::filesystem::directory_iterator(folder))
      if (!std::filesystem::exists(entry.path() / kDone))
        std::filesystem::remove_all(entry.path(), ignored);
  }
  auto left = static_cast<int64_t>(complete.size());
  for (const auto& [step, path] : complete) {
    const bool milestone = keep_every > 0 && step % keep_every == 0;
    if (left-- <= keep_last || milestone) continue;
    // The mark goes first: a half-removed checkpoint must not look complete.
    std::filesystem::remove(path / kDone, ignored);
    std::filesystem::remove_all(path, ignored);
  }
}

}  // namespace sfumato
