#include "sfumato/run/checkpoint.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <string>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/printable.h"
#include "sfumato/core/text.h"
#include "sfumato/io/json_file.h"

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

constexpr const char* kNameCharacters = "abcdefghijklmnopqrstuvwxyz0123456789_";
/// Checkpoints of older versions do not list their groups.
constexpr const char* kGroupsOfOld[] = {kReleasedGroup, kAverageGroup, kOptimizerGroup};

nlohmann::json names_of(const TensorGroup& group) {
  nlohmann::json names = nlohmann::json::array();
  for (const TensorInfo& tensor : group.tensors) names.push_back(tensor.name);
  return names;
}

/// They name files. DataError for one that could lie elsewhere, or two in one file.
void check_names(const std::vector<std::string>& names, const std::filesystem::path& path) {
  for (auto name = names.begin(); name != names.end(); ++name) {
    const bool plain = !name->empty() && name->find_first_not_of(kNameCharacters) == name->npos;
    if (!plain || std::find(names.begin(), name, *name) != name)
      throw DataError(fmt::format(
          "'{}': '{}' names no group of tensors of its own; names are of a-z, 0-9 and _",
          path.string(), printable(*name)));
  }
}

}  // namespace

std::vector<std::string> checkpoint_groups(const nlohmann::json& state,
                                           const std::filesystem::path& file) {
  std::vector<std::string> groups(std::begin(kGroupsOfOld), std::end(kGroupsOfOld));
  try {
    if (state.contains("groups")) state["groups"].get_to(groups);
  } catch (const nlohmann::json::exception& error) {
    throw DataError(fmt::format("'{}' is damaged: {}", file.string(), error.what()));
  }
  check_names(groups, file);
  return groups;
}

const TensorGroup& Checkpoint::group(std::string_view name) const {
  for (const TensorGroup& each : groups)
    if (each.name == name) return each;
  throw DataError(
      fmt::format("the checkpoint of step {} holds no group of tensors called '{}'", step, name));
}

void write_checkpoint(const std::filesystem::path& folder, const Checkpoint& checkpoint) {
  const std::filesystem::path path = folder / fmt::format("{}{:06}", kPrefix, checkpoint.step);
  std::vector<std::string> groups;
  nlohmann::json tensors = nlohmann::json::object();
  for (const TensorGroup& group : checkpoint.groups) {
    groups.push_back(group.name);
    tensors[group.name] = names_of(group);
  }
  check_names(groups, path);
  std::error_code ignored;
  // What is there of the same step; the mark goes first, so that half of it does not look whole.
  std::filesystem::remove(path / kDone, ignored);
  std::filesystem::remove_all(path, ignored);
  make_folder(path, 0700);
  for (const TensorGroup& group : checkpoint.groups) write_tensor_group(path, group, 0600);
  nlohmann::json state = checkpoint.state;
  state["step"] = checkpoint.step;
  state["groups"] = groups;
  state["tensors"] = tensors;
  write_json_atomic(path / "state.json", state, 2, 0600);
  write_file_atomic(path / kDone, "", 0600);
  fsync_path(folder);
}

std::optional<std::filesystem::path> newest_checkpoint(const std::filesystem::path& folder) {
  const auto found = complete_checkpoints(folder);
  if (found.empty()) return std::nullopt;
  return found.rbegin()->second;
}

std::vector<int64_t> checkpoint_steps(const std::filesystem::path& folder) {
  std::vector<int64_t> steps;
  for (const auto& [step, path] : complete_checkpoints(folder)) steps.push_back(step);
  return steps;
}

std::string steps_text(const std::vector<int64_t>& steps) {
  if (steps.empty()) return "no step";
  const std::string last = fmt::format("{}", steps.back());
  if (steps.size() == 1) return last;
  return fmt::format("{} and {}", fmt::join(steps.begin(), steps.end() - 1, ", "), last);
}

std::filesystem::path checkpoint_of_step(const std::filesystem::path& folder, int64_t step) {
  const auto found = complete_checkpoints(folder);
  if (const auto at = found.find(step); at != found.end()) return at->second;
  throw UsageError(fmt::format(
      "there is no checkpoint of step {} in '{}'; {} one: name one of them (the newest "
      "run.keep_last are kept, and those at multiples of run.keep_every)",
      step, folder.string(),
      found.size() == 1 ? fmt::format("step {} has", found.begin()->first)
      : found.empty()   ? std::string("no step has")
                        : fmt::format("steps {} have", steps_text(checkpoint_steps(folder)))));
}

Checkpoint read_checkpoint(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path / kDone))
    throw DataError(
        fmt::format("'{}' is no complete checkpoint (its DONE mark is missing)", path.string()));
  Checkpoint checkpoint;
  try {
    checkpoint.state = read_json(path / "state.json");
    checkpoint.step = checkpoint.state.at("step").get<int64_t>();
    const nlohmann::json& tensors = checkpoint.state.at("tensors");
    for (const std::string& group : checkpoint_groups(checkpoint.state, path / "state.json"))
      checkpoint.groups.push_back(
          read_tensor_group(path, group, tensors.at(group).get<std::vector<std::string>>()));
  } catch (const nlohmann::json::exception& error) {
    throw DataError(
        fmt::format("'{}' is damaged: {}", (path / "state.json").string(), error.what()));
  }
  return checkpoint;
}

void prune_checkpoints(const std::filesystem::path& folder, int64_t keep_last, int64_t keep_every) {
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
