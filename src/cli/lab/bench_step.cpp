#include "cli/lab/bench_step.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "cli/lab/bench_case.h"
#include "cli/lab/enum_option.h"
#include "sfumato/bench/micro_benchmarks.h"
#include "sfumato/bench/step_benchmark.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/core/text.h"
#include "sfumato/device/gpu.h"
#include "sfumato/device/threads.h"
#include "sfumato/train/setup.h"

namespace sfumato::cli {
namespace {

using Json = nlohmann::ordered_json;

struct Arguments {
  CaseOptions of;
  std::string only;
  AlgorithmPolicy layer_algorithm = AlgorithmPolicy::kAuto;
  int64_t threads = 0;
  int repeat = 5;
  bool json = false;
};

/// Peak memory of a process that does nothing but one kind of step, in bytes: its resident set, or
/// on a GPU the tensors alive.
struct StepMemory {
  int64_t idle = 0;      ///< program, libraries and network; on a GPU weights and moments
  int64_t gradient = 0;  ///< up to the gradient
  int64_t whole = 0;     ///< with noise and Adam
  int64_t held = 0;      ///< GPU only: what the allocator holds at the end, tensors or not
};

struct StepResult {
  StepCase step_case;
  int64_t parameters = 0;
  Timing private_gradient, plain_gradient, private_whole, plain_whole;
  StepMemory private_memory, plain_memory;
  bool recorded = false;

  double draws_per_s(const Timing& t) const {
    return static_cast<double>(step_case.examples * step_case.draws) / t.median;
  }
};

constexpr int kWarmUpOnGpu = 4;  ///< two batches, the recording, one replay
constexpr int64_t kInARow = 4;   ///< steps on a GPU between two looks at the clock

double ratio(double a, double b) { return b > 0 ? a / b : 0; }
double ratio(int64_t a, int64_t b) { return ratio(static_cast<double>(a), static_cast<double>(b)); }

/// The one that is named, or what a CPU does in a short time.
std::vector<StepCase> cases(const CaseOptions& options) {
  if (!options.network.empty() || !options.case_name.empty()) return {named_case(options)};
  std::vector<StepCase> all;
  for (StepCase& known : builtin_step_cases())
    if (!known.by_name_only) all.push_back(adjusted(std::move(known), options));
  return all;
}

// Memory ------------------------------------------------------------------------------------------

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

/// In the child: one kind of step and nothing else.
void measure_memory(const Arguments& arguments) {
  set_threads(arguments.threads);
  const StepKind kind = arguments.only == "private" ? StepKind::kPrivate : StepKind::kPlain;
  StepBenchmark benchmark(cases(arguments.of).at(0), arguments.layer_algorithm);
  StepMemory memory;
  if (arguments.of.device == ComputeDevice::kCuda) {
    memory = gpu_memory_of(benchmark, kind);
  } else {
    memory.idle = peak_resident_bytes();
    for (int i = 0; i < 2; ++i) benchmark.run_gradient(kind);
    memory.gradient = peak_resident_bytes();
    for (int i = 0; i < 2; ++i) (void)benchmark.run(kind);
    memory.whole = peak_resident_bytes();
  }
  fmt::print("{} {} {} {}\n", memory.idle, memory.gradient, memory.whole, memory.held);
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

StepMemory memory_of(const Arguments& arguments, const StepCase& step_case, const char* kind) {
  std::vector<std::string> words = {"sfumato", "bench", "step", "--only", kind};
  const auto add = [&](const char* option, const std::string& value) {
    words.emplace_back(option);
    words.push_back(value);
  };
  if (arguments.of.network.empty())
    add("--case", step_case.name);
  else
    add("--network", arguments.of.network);
  if (!arguments.of.generator.empty()) add("--generator", arguments.of.generator);
  add("--examples", std::to_string(step_case.examples));
  add("--draws", std::to_string(step_case.draws));
  add("--threads", std::to_string(arguments.threads));
  add("--layer-algorithm", to_string(arguments.layer_algorithm));
  add("--device", to_string(arguments.of.device));
  add("--precision", to_string(arguments.of.precision));
  const std::string text = output_of_self(words);
  long long idle = 0, gradient = 0, whole = 0, held = 0;
  if (std::sscanf(text.c_str(), "%lld %lld %lld %lld", &idle, &gradient, &whole, &held) != 4)
    throw DeviceError("the process that measures memory printed '" + text + "'");
  return {idle, gradient, whole, held};
}

// Time --------------------------------------------------------------------------------------------

void measure_time(const Arguments& arguments, StepResult& result) {
  StepBenchmark benchmark(result.step_case, arguments.layer_algorithm);
  result.parameters = benchmark.parameters();
  for (int i = 0; i < (arguments.of.device == ComputeDevice::kCuda ? kWarmUpOnGpu : 1); ++i) {
    (void)benchmark.run(StepKind::kPlain);
    (void)benchmark.run(StepKind::kPrivate);
  }
  const int64_t in_a_row = arguments.of.device == ComputeDevice::kCuda ? kInARow : 1;
  std::vector<double> gradient[2], whole[2];
  // In turns, so that a slower minute of the machine meets both.
  for (int i = 0; i < arguments.repeat; ++i)
    for (const int kind : {0, 1}) {
      const StepKind step = kind == 0 ? StepKind::kPlain : StepKind::kPrivate;
      gradient[kind].push_back(benchmark.run_gradient(step, in_a_row));
      whole[kind].push_back(benchmark.run(step, in_a_row));
    }
  result.recorded = benchmark.recorded();
  result.plain_gradient = summarize(gradient[0]);
  result.private_gradient = summarize(gradient[1]);
  result.plain_whole = summarize(whole[0]);
  result.private_whole = summarize(whole[1]);
}

StepResult measure(const Arguments& arguments, const StepCase& step_case) {
  StepResult result;
  result.step_case = step_case;
  result.plain_memory = memory_of(arguments, step_case, "plain");
  result.private_memory = memory_of(arguments, step_case, "private");
  measure_time(arguments, result);
  return result;
}

// Output ------------------------------------------------------------------------------------------

Json to_json(const Timing& gradient, const Timing& whole, const StepMemory& memory) {
  Json out{{"gradient", timing_json(gradient)},
           {"whole_step", timing_json(whole)},
           {"idle_bytes", memory.idle},
           {"peak_bytes_gradient", memory.gradient},
           {"peak_bytes_whole_step", memory.whole}};
  if (memory.held > 0) out["held_bytes"] = memory.held;
  return out;
}

Json to_json(const StepResult& r) {
  const auto time = [](const Timing& a, const Timing& b) {
    return Json{{"median", ratio(a.median, b.median)}, {"min", ratio(a.min, b.min)}};
  };
  return {{"name", r.step_case.name},
          {"parameters", r.parameters},
          {"examples", r.step_case.examples},
          {"draws", r.step_case.draws},
          {"recorded", r.recorded},
          {"draws_per_s",
           {{"private", r.draws_per_s(r.private_whole)}, {"plain", r.draws_per_s(r.plain_whole)}}},
          {"private", to_json(r.private_gradient, r.private_whole, r.private_memory)},
          {"plain", to_json(r.plain_gradient, r.plain_whole, r.plain_memory)},
          {"ratio",
           {{"gradient", time(r.private_gradient, r.plain_gradient)},
            {"whole_step", time(r.private_whole, r.plain_whole)},
            {"peak_gradient", ratio(r.private_memory.gradient, r.plain_memory.gradient)},
            {"peak_whole_step", ratio(r.private_memory.whole, r.plain_memory.whole)}}}};
}

void print(const StepResult& r) {
  fmt::print("{}: {:.1f} M parameters, {} examples of {} draws\n", r.step_case.name,
             static_cast<double>(r.parameters) * 1e-6, r.step_case.examples, r.step_case.draws);
  fmt::print("  {:<28}{:>30}{:>30}  ratio of medians, minima\n", "", "private: min, median, max",
             "plain: min, median, max");
  const auto time = [](const char* what, const Timing& a, const Timing& b) {
    fmt::print("  {:<28}{:>12.3f} {:>8.3f} {:>8.3f}{:>12.3f} {:>8.3f} {:>8.3f}  {:.3f}, {:.3f}\n",
               what, a.min, a.median, a.max, b.min, b.median, b.max, ratio(a.median, b.median),
               ratio(a.min, b.min));
  };
  const auto memory = [](const char* what, int64_t a, int64_t b) {
    fmt::print("  {:<28}{:>30}{:>30}  {:.3f}\n", what, human_bytes(static_cast<double>(a)),
               human_bytes(static_cast<double>(b)), ratio(a, b));
  };
  time("gradient, s", r.private_gradient, r.plain_gradient);
  time("with noise and Adam, s", r.private_whole, r.plain_whole);
  memory("peak memory, gradient", r.private_memory.gradient, r.plain_memory.gradient);
  memory("peak memory, with Adam", r.private_memory.whole, r.plain_memory.whole);
  if (r.private_memory.held > 0)
    memory("held by the allocator", r.private_memory.held, r.plain_memory.held);
  fmt::print("  {:<28}{:>30.0f}{:>30.0f}{}\n", "draws per second", r.draws_per_s(r.private_whole),
             r.draws_per_s(r.plain_whole), r.recorded ? "  as CUDA graphs" : "");
}

void run(const Arguments& arguments) {
  if (!arguments.only.empty()) return measure_memory(arguments);
  if (arguments.json) set_quiet(true);
  set_threads(arguments.threads);
  (void)open_device(arguments.of.device);  // before a child fails for want of it
  Json out{{"threads", at::get_num_threads()},
           {"repeat", arguments.repeat},
           {"layer_algorithm", to_string(arguments.layer_algorithm)},
           {"device", to_string(arguments.of.device)},
           {"precision", to_string(arguments.of.precision)},
           {"cases", Json::array()}};
  for (const StepCase& each : cases(arguments.of)) {
    const StepResult result = measure(arguments, each);
    out["cases"].push_back(to_json(result));
    if (!arguments.json) print(result);
  }
  if (arguments.json) fmt::print("{}\n", out.dump(2));
}

}  // namespace

void add_bench_step(CLI::App& bench) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* sub = bench.add_subcommand("step", "a private training step against a plain one");
  add_case_options(*sub, arguments->of, "small and cifar10");
  sub->add_option("--repeat", arguments->repeat, "times of each kind (on a GPU, of 4 steps each)")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  sub->add_option("--threads", arguments->threads, "0: all cores")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  add_enum_option(*sub, "--layer-algorithm", arguments->layer_algorithm,
                  "auto, keep, gram, or on a GPU direct");
  sub->add_flag("--json", arguments->json, "print one JSON object with all figures");
  // How the program calls itself to measure memory.
  sub->add_option("--only", arguments->only)->check(CLI::IsMember({"private", "plain"}))->group("");
  sub->callback([arguments] { run(*arguments); });
}

}  // namespace sfumato::cli
