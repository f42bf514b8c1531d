#include "cli/lab/bench_step_memory.h"

#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>

#include "sfumato/core/error.h"
#include "sfumato/device/gpu.h"

namespace sfumato::cli {
namespace {

/// Tensors at the peak while a step is recorded: what a replay occupies. Layers are measured and
/// libraries choose their algorithms before, with memory of their own.
StepMemory gpu_memory_of(StepBenchmark& benchmark, StepKind kind) {
  const GpuBackend& gpu = *find_gpu_backend();
  StepMemory memory;
  memory.idle = gpu.memory().allocated;
  for (int i = 0; i < 2; ++i) benchmark.run_gradient(kind);
  gpu.release_cached_memory();
  gpu.reset_peak();
  for (int i = 0; i < 2; ++i) benchmark.run_gradient(kind);
  memory.gradient = gpu.memory().peak;
  for (int i = 0; i < 2; ++i) (void)benchmark.run(kind);
  const GpuMemory end = gpu.memory();
  memory.whole = end.peak;
  memory.held = end.allocated + end.cached;
  return memory;
}

StepMemory cpu_memory_of(StepBenchmark& benchmark, StepKind kind) {
  StepMemory memory;
  memory.idle = peak_resident_bytes();
  for (int i = 0; i < 2; ++i) benchmark.run_gradient(kind);
  memory.gradient = peak_resident_bytes();
  for (int i = 0; i < 2; ++i) (void)benchmark.run(kind);
  memory.whole = peak_resident_bytes();
  return memory;
}

void take_turns(StepBenchmark& benchmark, StepKind kind, ComputeDevice device) {
  std::cout << fmt::format("ready {}\n", benchmark.parameters()) << std::flush;
  for (std::string line; std::getline(std::cin, line);)
    std::cout << fmt::format("{:.9f}\n", benchmark.run(kind, steps_in_a_row(device))) << std::flush;
}

/// Runs this program again; what it printed. (Not ru_maxrss: it starts from the parent's.)
std::string output_of_self(const std::vector<std::string>& arguments) {
  int ends[2];
  if (::pipe(ends) != 0) throw DeviceError("cannot make a pipe to measure memory");
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  ::posix_spawn_file_actions_addclose(&actions, ends[0]);
  ::posix_spawn_file_actions_addclose(&actions, ends[1]);
  std::vector<std::string> words = arguments;
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_t child = 0;
  const int failed =
      ::posix_spawn(&child, "/proc/self/exe", &actions, nullptr, argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  std::string text;
  char buffer[256];
  for (ssize_t n; failed == 0 && (n = ::read(ends[0], buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<size_t>(n));
  ::close(ends[0]);
  int status = 0;
  if (failed != 0 || ::waitpid(child, &status, 0) != child || !WIFEXITED(status) ||
      WEXITSTATUS(status) != 0)
    throw DeviceError(
        "the process that measures memory failed; is there enough memory for one "
        "step? Use fewer --examples or --draws");
  return text;
}

}  // namespace

int64_t steps_in_a_row(ComputeDevice device) { return device == ComputeDevice::kCuda ? 4 : 1; }

void run_one_kind(const StepCase& step_case, StepKind kind, AlgorithmPolicy policy, bool by_turns) {
  StepBenchmark benchmark(step_case, policy);
  const bool on_gpu = step_case.device == ComputeDevice::kCuda;
  StepMemory memory = on_gpu ? gpu_memory_of(benchmark, kind) : cpu_memory_of(benchmark, kind);
  if (by_turns) {
    take_turns(benchmark, kind, step_case.device);
    if (!on_gpu) memory.whole = peak_resident_bytes();
  }
  std::cout << fmt::format("{} {} {} {}\n", memory.idle, memory.gradient, memory.whole, memory.held)
            << std::flush;
}

StepMemory memory_in_child(std::vector<std::string> words, StepKind kind) {
  words.emplace_back("--only");
  words.emplace_back(kind == StepKind::kPrivate ? "private" : "plain");
  const std::string text = output_of_self(words);
  long long idle = 0, gradient = 0, whole = 0, held = 0;
  if (std::sscanf(text.c_str(), "%lld %lld %lld %lld", &idle, &gradient, &whole, &held) != 4)
    throw DeviceError("the process that measures memory printed '" + text + "'");
  return {idle, gradient, whole, held};
}

}  // namespace sfumato::cli
