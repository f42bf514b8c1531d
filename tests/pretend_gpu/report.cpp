#include "pretend_gpu/report.h"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "pretend_gpu/capture.h"
#include "pretend_gpu/device_memory.h"
#include "pretend_gpu/settings.h"

namespace pretend_gpu {
namespace {

using Json = nlohmann::ordered_json;

/// More different ones than this say nothing new.
constexpr size_t kMostKinds = 200;

constexpr std::array kNames = {
    "launches",        "graph_launches",   "captures_begun",      "captures_ended",
    "captures_failed", "allocations",      "allocations_refused", "copies_to_device",
    "copies_to_host",  "copies_on_device", "synchronisations",    "device_synchronisations"};
static_assert(kNames.size() == static_cast<size_t>(Count::kEnd));

struct Occurrences {
  int error = 0;
  int64_t count = 0;
};
using Tally = std::map<std::string, Occurrences>;

/// Never destroyed: libraries call the runtime until the process is gone.
struct State {
  std::recursive_mutex mutex;
  std::array<int64_t, kNames.size()> counts = {};
  Tally illegal, warnings;
  int64_t illegal_calls = 0;
  std::set<std::string> not_pretended;
  bool used = false, forked = false;
};
State& state() {
  static auto* const once = new State;
  return *once;
}

thread_local cudaError_t last_error = cudaSuccess;

void add(Tally& tally, const std::string& what, int error) {
  if (tally.size() >= kMostKinds && !tally.contains(what)) return;
  Occurrences& found = tally[what];
  found.error = error;
  ++found.count;
}

void say(const char* kind, const std::string& what) {
  if (settings().verbose) std::fprintf(stderr, "pretend_gpu: %s: %s\n", kind, what.c_str());
}

Json to_json(const Tally& tally) {
  Json all = Json::array();
  for (const auto& [what, found] : tally) {
    Json one{{"what", what}, {"count", found.count}};
    if (found.error != 0) one["error"] = found.error;
    all.push_back(one);
  }
  return all;
}

/// The words that started this process.
Json command_line() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  Json words = Json::array();
  for (size_t at = 0; at < text.size(); at = text.find('\0', at) + 1)
    words.push_back(text.c_str() + at);
  return words;
}

/// When the process ends. One write, so that lines of several processes do not mix.
__attribute__((destructor)) void write_log() {
  const Lock lock;
  if (!state().used || state().forked) return;
  const std::string line = report_line() + "\n";
  say("report", line);
  if (settings().log.empty()) return;
  const int file = ::open(settings().log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (file < 0 || ::write(file, line.data(), line.size()) != static_cast<ssize_t>(line.size()))
    std::fprintf(stderr, "pretend_gpu: cannot write to '%s'\n", settings().log.c_str());
  if (file >= 0) ::close(file);
}

}  // namespace

Lock::Lock() : guard_(state().mutex) {}

void count(Count what) {
  const Lock lock;
  ++state().counts[static_cast<size_t>(what)];
}

cudaError_t set_last_error(cudaError_t error) {
  last_error = error;
  return error;
}

cudaError_t illegal(cudaError_t error, const std::string& what) {
  const Lock lock;
  ++state().illegal_calls;
  add(state().illegal, what, error);
  say("illegal", what + " -> " + std::to_string(error));
  return set_last_error(error);
}

void warn(const std::string& what) {
  const Lock lock;
  add(state().warnings, what, 0);
  say("warning", what);
}

cudaError_t not_pretended(const char* function) {
  const Lock lock;
  state().used = true;
  state().not_pretended.insert(function);
  say("not pretended", function);
  return set_last_error(cudaErrorNotSupported);
}

cudaError_t use_device(const char* function) {
  const Lock lock;
  if (state().forked)
    return illegal(cudaErrorInitializationError,
                   std::string(function) + " in a child of a process that had used the GPU");
  if (!state().used) {
    state().used = true;
    ::pthread_atfork(nullptr, nullptr, [] { state().forked = true; });
  }
  return cudaSuccess;
}

bool device_was_used() {
  const Lock lock;
  return state().used;
}

std::string report_line() {
  const Lock lock;
  Json line{{"command", command_line()}, {"process", ::getpid()}, {"device", settings().name}};
  for (size_t i = 0; i < kNames.size(); ++i) line[kNames[i]] = state().counts[i];
  line["live_bytes"] = live_bytes();
  line["peak_bytes"] = peak_bytes();
  line["captures_open"] = open_captures();
  line["illegal_calls"] = state().illegal_calls;
  line["illegal"] = to_json(state().illegal);
  line["warnings"] = to_json(state().warnings);
  line["not_pretended"] = state().not_pretended;
  return line.dump(-1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace);
}

}  // namespace pretend_gpu

extern "C" {

cudaError_t cudaGetLastError() { return std::exchange(pretend_gpu::last_error, cudaSuccess); }

cudaError_t cudaPeekAtLastError() { return pretend_gpu::last_error; }

/// For a program that is linked with this library and looks at its own report.
const char* pretend_gpu_report() {
  static auto* const text = new std::string;
  *text = pretend_gpu::report_line();
  return text->c_str();
}

}  // extern "C"
