#include "sfumato/device/tuner.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>
#include <torch/headeronly/version.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/log.h"
#include "sfumato/core/version.h"
#include "sfumato/device/gpu.h"

namespace sfumato {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kRepeat = 5;
/// Of this moment: another time there may be more memory, so it never reaches the file.
constexpr double kDoesNotFit = std::numeric_limits<double>::infinity();

/// `why`: what was said of a way that this GPU or its libraries do not have; memory that ran out
/// leaves it empty.
double best_seconds(const GpuBackend& gpu, const std::function<void()>& run, std::string& why) {
  double best = kDoesNotFit;
  try {
    run();  // libraries choose their algorithms, memory is cached
    for (int i = 0; i < kRepeat; ++i) best = std::min(best, gpu.seconds_of(run));
    return best;
  } catch (const c10::OutOfMemoryError&) {
    gpu.release_cached_memory();
    return kDoesNotFit;
  } catch (const c10::Error& error) {  // a library without an algorithm for this shape
    why = error.what_without_backtrace();
  } catch (const DeviceError& error) {  // a kernel that this GPU cannot start
    why = error.what();
  }
  gpu.synchronize();  // throws where the GPU itself is at fault
  return kDoesNotFit;
}

/// "NVIDIA H200" -> "nvidia-h200".
std::string file_name(std::string gpu) {
  for (char& c : gpu) {
    const auto byte = static_cast<unsigned char>(c);
    c = std::isalnum(byte) != 0 ? static_cast<char>(std::tolower(byte)) : '-';
  }
  return gpu;
}

/// Builds whose times are worth remembering for each other.
std::string made_by() {
  return fmt::format("sfumato {}, LibTorch {}", git_commit(), TORCH_VERSION);
}

}  // namespace

Tuner::Tuner(std::filesystem::path memory) : memory_(std::move(memory)) {}
Tuner::~Tuner() = default;

std::filesystem::path Tuner::default_memory() {
  const auto folder = [](const char* variable, const char* below) -> std::filesystem::path {
    const char* value = std::getenv(variable);
    return value == nullptr || *value == '\0' ? std::filesystem::path{}
                                              : std::filesystem::path(value) / below;
  };
  std::filesystem::path place = folder("SFUMATO_CACHE_DIR", "");
  if (place.empty()) place = folder("XDG_CACHE_HOME", "sfumato");
  if (place.empty()) place = folder("HOME", ".cache/sfumato");
  const GpuBackend* gpu = find_gpu_backend();
  if (place.empty() || gpu == nullptr) return {};
  return place / fmt::format("layers-{}.json", file_name(gpu->facts(gpu->current_device()).name));
}

void Tuner::load() {
  if (std::exchange(loaded_, true) || memory_.empty() || !std::filesystem::exists(memory_)) return;
  try {
    const Json file = Json::parse(read_file(memory_));
    if (file.value("made_by", "") != made_by()) return;  // other kernels, other times
    for (const auto& [shape, row] : file.at("seconds").items())
      for (const auto& [candidate, seconds] : row.items()) {
        const double value = seconds.get<double>();
        if (value > 0) known_[shape][candidate] = value;
      }
  } catch (const std::exception& error) {
    known_.clear();
    log_warning(fmt::format("'{}' cannot be read ({}): layers are measured again", memory_.string(),
                            error.what()));
  }
}

void Tuner::save() {
  if (memory_.empty() || warned_) return;
  Json rows = Json::object();
  for (const auto& [shape, row] : known_)
    for (const auto& [candidate, seconds] : row)
      if (std::isfinite(seconds)) rows[shape][candidate] = seconds;
  try {
    std::filesystem::create_directories(memory_.parent_path());
    write_file_atomic(memory_, Json{{"made_by", made_by()}, {"seconds", rows}}.dump(1) + "\n");
  } catch (const std::exception& error) {
    warned_ = true;
    log_warning(fmt::format("'{}' cannot be written ({}): the next process measures layers again",
                            memory_.string(), error.what()));
  }
}

Tuner::Result Tuner::fastest(const std::string& shape, const std::vector<Candidate>& candidates) {
  Result result;
  const GpuBackend* gpu = find_gpu_backend();
  if (candidates.size() < 2 || gpu == nullptr) return result;
  load();
  std::map<std::string, double>& row = known_[shape];
  bool measured = false;
  std::string why;  // the last that was refused, not for want of memory
  bool may_fit = false;
  for (const Candidate& candidate : candidates) {
    const auto [found, is_new] = row.emplace(candidate.name, kDoesNotFit);
    if (is_new) {
      std::string why_not;
      found->second = best_seconds(*gpu, candidate.run, why_not);
      if (!why_not.empty()) {
        why = fmt::format("'{}' by '{}' does not run on this GPU: {}", shape, candidate.name,
                          why_not);
      }
      may_fit = may_fit || why_not.empty();
      measured = true;
    }
    result.seconds.push_back(found->second);
  }
  result.fastest = static_cast<size_t>(
      std::min_element(result.seconds.begin(), result.seconds.end()) - result.seconds.begin());
  if (measured) save();
  if (!why.empty() && std::isfinite(result.seconds[result.fastest]))
    log_warning(fmt::format("{}; '{}' is taken", why, candidates[result.fastest].name));
  if (!std::isfinite(result.seconds[result.fastest])) {
    known_.erase(shape);
    // Less memory may do for a way that only did not fit: the caller can try with fewer examples.
    if (!may_fit && !why.empty()) throw DeviceError(why + "; no other way is left");
    TORCH_CHECK_WITH(OutOfMemoryError, false, "no way to compute '", shape,
                     "' fits the GPU's memory");
  }
  return result;
}

}  // namespace sfumato
