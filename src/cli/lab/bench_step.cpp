#include "cli/lab/bench_step.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <ranges>

#include "cli/lab/bench_case.h"
#include "cli/lab/bench_device.h"
#include "cli/lab/bench_step_memory.h"
#include "sfumato/bench/micro_benchmarks.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/core/text.h"
#include "sfumato/device/threads.h"
#include "sfumato/train/setup.h"

namespace sfumato::cli {
namespace {

using Json = nlohmann::ordered_json;

struct BenchStepArguments {
  CaseOptions of;
  std::vector<Precision> precisions{Precision::kFp32};
  std::vector<MemoryFormat> formats{MemoryFormat::kAuto};
  std::string only;
  AlgorithmPolicy layer_algorithm = AlgorithmPolicy::kAuto;
  int64_t threads = 0;
  int repeat = 5;
  bool json = false, by_turns = false;
};

/// One kind of step: seconds by turn, and memory.
struct KindResult {
  std::vector<double> gradient, whole;
  StepMemory memory;
};

struct StepResult {
  StepCase step_case;
  int64_t parameters = 0;
  KindResult plain, priv;
  bool recorded = false;

  KindResult& of(StepKind kind) { return kind == StepKind::kPrivate ? priv : plain; }
  double draws_per_s(const KindResult& kind) const {
    return static_cast<double>(step_case.examples * step_case.draws) / summarize(kind.whole).median;
  }
};

constexpr int kWarmUpOnGpu = 4;  ///< two batches, the recording, one replay
constexpr StepKind kStepKinds[] = {StepKind::kPlain, StepKind::kPrivate};

double ratio(double a, double b) { return b > 0 ? a / b : 0; }
double ratio(int64_t a, int64_t b) { return ratio(static_cast<double>(a), static_cast<double>(b)); }

/// Of one turn's seconds over the same turn's: a slower minute is in both.
struct TurnRatios {
  double low = 0, median = 0, high = 0;  ///< quartiles
};
TurnRatios by_turn(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> each;
  for (size_t i = 0; i < a.size(); ++i) each.push_back(ratio(a[i], b[i]));
  std::ranges::sort(each);
  const size_t last = each.size() - 1;
  return {each[last / 4], summarize(each).median, each[last - last / 4]};
}

/// The one that is named, or what a CPU does in a short time.
std::vector<StepCase> cases(const CaseOptions& options) {
  if (!options.network.empty() || !options.case_name.empty()) return {named_case(options)};
  std::vector<StepCase> all;
  for (StepCase& known : builtin_step_cases())
    if (!known.by_name_only) all.push_back(adjusted(std::move(known), options));
  return all;
}

/// Every precision in every memory format.
std::vector<StepCase> ways_of(const BenchStepArguments& arguments, StepCase step_case) {
  std::vector<StepCase> ways;
  for (const Precision precision : arguments.precisions)
    for (const MemoryFormat format : arguments.formats) {
      step_case.precision = precision;
      step_case.memory_format = format;
      ways.push_back(step_case);
    }
  return ways;
}

/// "fp32", "fp32 channels_last".
std::string way_text(const StepCase& way) {
  return way.memory_format == MemoryFormat::kAuto
             ? to_string(way.precision)
             : fmt::format("{} {}", to_string(way.precision), to_string(way.memory_format));
}

StepMemory memory_of(const BenchStepArguments& arguments, const StepCase& step_case,
                     StepKind kind) {
  std::vector<std::string> words = {"sfumato", "bench", "step"};
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
  add("--device", to_string(step_case.device));
  add("--precision", to_string(step_case.precision));
  add("--memory-format", to_string(step_case.memory_format));
  return memory_in_child(std::move(words), kind);
}

/// In turns, so that a slower minute of the machine meets all; every other turn backwards, so that
/// none always follows the same one.
void measure_time(const BenchStepArguments& arguments, std::vector<StepResult>& results) {
  const bool on_gpu = arguments.of.device == ComputeDevice::kCuda;
  std::vector<std::unique_ptr<StepBenchmark>> benchmarks;
  for (StepResult& result : results) {
    benchmarks.push_back(
        std::make_unique<StepBenchmark>(result.step_case, arguments.layer_algorithm));
    result.parameters = benchmarks.back()->parameters();
    for (int i = 0; i < (on_gpu ? kWarmUpOnGpu : 1); ++i)
      for (const StepKind kind : kStepKinds) (void)benchmarks.back()->run(kind);
  }
  const int64_t in_a_row = steps_in_a_row(arguments.of.device);
  const auto count = static_cast<int64_t>(2 * results.size());
  for (int turn = 0; turn < arguments.repeat; ++turn)
    for (int64_t i = 0; i < count; ++i) {
      const auto place = static_cast<size_t>(turn % 2 == 0 ? i : count - 1 - i);
      const StepKind kind = kStepKinds[place % 2];
      KindResult& into = results[place / 2].of(kind);
      into.gradient.push_back(benchmarks[place / 2]->run_gradient(kind, in_a_row));
      into.whole.push_back(benchmarks[place / 2]->run(kind, in_a_row));
    }
  for (size_t i = 0; i < results.size(); ++i) results[i].recorded = benchmarks[i]->recorded();
}

std::vector<StepResult> measure(const BenchStepArguments& arguments, const StepCase& step_case) {
  std::vector<StepResult> results;
  for (StepCase& way : ways_of(arguments, step_case)) {
    StepResult result;
    result.step_case = std::move(way);
    for (const StepKind kind : kStepKinds)
      result.of(kind).memory = memory_of(arguments, result.step_case, kind);
    results.push_back(std::move(result));
  }
  measure_time(arguments, results);
  return results;
}

// Output ------------------------------------------------------------------------------------------

Json to_json(const TurnRatios& r) {
  return {{"low", r.low}, {"median", r.median}, {"high", r.high}};
}

Json to_json(const KindResult& kind) {
  Json out{{"gradient", timing_json(summarize(kind.gradient))},
           {"whole_step", timing_json(summarize(kind.whole))},
           {"idle_bytes", kind.memory.idle},
           {"peak_bytes_gradient", kind.memory.gradient},
           {"peak_bytes_whole_step", kind.memory.whole}};
  if (kind.memory.held > 0) out["held_bytes"] = kind.memory.held;
  return out;
}

/// `first`: of the first way.
Json to_json(const StepResult& r, const StepResult& first) {
  const auto time = [](const std::vector<double>& a, const std::vector<double>& b) {
    const Timing x = summarize(a), y = summarize(b);
    return Json{{"median", ratio(x.median, y.median)},
                {"min", ratio(x.min, y.min)},
                {"by_turn", to_json(by_turn(a, b))}};
  };
  Json out{{"name", r.step_case.name},
           {"precision", to_string(r.step_case.precision)},
           {"memory_format", to_string(r.step_case.memory_format)},
           {"chosen_memory_format", to_string(chosen_memory_format(r.step_case.memory_format))},
           {"parameters", r.parameters},
           {"examples", r.step_case.examples},
           {"draws", r.step_case.draws},
           {"recorded", r.recorded},
           {"draws_per_s", {{"private", r.draws_per_s(r.priv)}, {"plain", r.draws_per_s(r.plain)}}},
           {"private", to_json(r.priv)},
           {"plain", to_json(r.plain)},
           {"ratio",
            {{"gradient", time(r.priv.gradient, r.plain.gradient)},
             {"whole_step", time(r.priv.whole, r.plain.whole)},
             {"peak_gradient", ratio(r.priv.memory.gradient, r.plain.memory.gradient)},
             {"peak_whole_step", ratio(r.priv.memory.whole, r.plain.memory.whole)}}}};
  if (&r == &first) return out;
  const auto over = [&](const KindResult& a, const KindResult& b) {
    return Json{{"gradient", time(a.gradient, b.gradient)}, {"whole_step", time(a.whole, b.whole)}};
  };
  out["over_first"] = {{"precision", to_string(first.step_case.precision)},
                       {"memory_format", to_string(first.step_case.memory_format)},
                       {"private", over(r.priv, first.priv)},
                       {"plain", over(r.plain, first.plain)}};
  return out;
}

void print(const StepResult& r, const StepResult& first) {
  fmt::print("{}: {:.1f} M parameters, {} examples of {} draws, {}\n", r.step_case.name,
             static_cast<double>(r.parameters) * 1e-6, r.step_case.examples, r.step_case.draws,
             way_text(r.step_case));
  fmt::print("  {:<28}{:>30}{:>30}  ratio of medians, minima; of turns\n", "",
             "private: min, median, max", "plain: min, median, max");
  const auto time = [](const char* what, const std::vector<double>& of_private,
                       const std::vector<double>& of_plain) {
    const Timing a = summarize(of_private), b = summarize(of_plain);
    const TurnRatios turns = by_turn(of_private, of_plain);
    fmt::print(
        "  {:<28}{:>12.3f} {:>8.3f} {:>8.3f}{:>12.3f} {:>8.3f} {:>8.3f}  {:.3f}, {:.3f}; {:.3f} "
        "({:.3f} to {:.3f})\n",
        what, a.min, a.median, a.max, b.min, b.median, b.max, ratio(a.median, b.median),
        ratio(a.min, b.min), turns.median, turns.low, turns.high);
  };
  const auto memory = [](const char* what, int64_t a, int64_t b) {
    fmt::print("  {:<28}{:>30}{:>30}  {:.3f}\n", what, human_bytes(static_cast<double>(a)),
               human_bytes(static_cast<double>(b)), ratio(a, b));
  };
  time("gradient, s", r.priv.gradient, r.plain.gradient);
  time("with noise and Adam, s", r.priv.whole, r.plain.whole);
  memory("peak memory, gradient", r.priv.memory.gradient, r.plain.memory.gradient);
  memory("peak memory, with Adam", r.priv.memory.whole, r.plain.memory.whole);
  if (r.priv.memory.held > 0)
    memory("held by the allocator", r.priv.memory.held, r.plain.memory.held);
  fmt::print("  {:<28}{:>30.0f}{:>30.0f}{}\n", "draws per second", r.draws_per_s(r.priv),
             r.draws_per_s(r.plain), r.recorded ? "  as CUDA graphs" : "");
  if (&r == &first) return;
  const auto over = [](const char* what, const std::vector<double>& a, const std::vector<double>& b,
                       const std::vector<double>& c, const std::vector<double>& d) {
    const auto text = [](const TurnRatios& t) {
      return fmt::format("{:.3f} ({:.3f} to {:.3f})", t.median, t.low, t.high);
    };
    fmt::print("  {:<28}{:>30}{:>30}\n", what, text(by_turn(a, b)), text(by_turn(c, d)));
  };
  const std::string of_first = fmt::format(", over {}", way_text(first.step_case));
  over(("gradient" + of_first).c_str(), r.priv.gradient, first.priv.gradient, r.plain.gradient,
       first.plain.gradient);
  over(("with Adam" + of_first).c_str(), r.priv.whole, first.priv.whole, r.plain.whole,
       first.plain.whole);
}

void run(const BenchStepArguments& arguments) {
  if (arguments.json) set_quiet(true);
  set_threads(arguments.threads);
  if (!arguments.only.empty())
    return run_one_kind(ways_of(arguments, cases(arguments.of).at(0)).front(),
                        arguments.only == "private" ? StepKind::kPrivate : StepKind::kPlain,
                        arguments.layer_algorithm, arguments.by_turns);
  if (arguments.of.device == ComputeDevice::kCuda && arguments.precisions.size() > 1)
    throw UsageError(
        "--precision: one at a time on a GPU, where libraries take it from the process");
  // Before a child fails for want of one.
  for (const Precision precision : arguments.precisions)
    (void)open_placement(arguments.of.device, precision);
  const auto names =
      arguments.precisions | std::views::transform([](Precision each) { return to_string(each); });
  Json out{{"threads", at::get_num_threads()},
           {"repeat", arguments.repeat},
           {"layer_algorithm", to_string(arguments.layer_algorithm)},
           {"device", to_string(arguments.of.device)},
           {"precision", fmt::format("{}", fmt::join(names, ","))},
           {"cases", Json::array()}};
  for (const StepCase& each : cases(arguments.of)) {
    const std::vector<StepResult> results = measure(arguments, each);
    for (const StepResult& result : results) {
      out["cases"].push_back(to_json(result, results.front()));
      if (!arguments.json) print(result, results.front());
    }
  }
  if (arguments.json) fmt::print("{}\n", out.dump(2));
}

}  // namespace

void add_bench_step(CLI::App& bench) {
  auto arguments = std::make_shared<BenchStepArguments>();
  CLI::App* sub = bench.add_subcommand("step", "a private training step against a plain one");
  add_case_options(*sub, arguments->of, "small and cifar10");
  add_choices_option(*sub, "--precision", arguments->precisions,
                     "fp32 or bf16; on a GPU also tf32. Several by turns in one process, as in "
                     "fp32,bf16: the others over the first, turn for turn");
  add_choices_option(*sub, "--memory-format", arguments->formats,
                     "of images on the CPU in fp32: auto, channels_first or channels_last; several "
                     "by turns, as above");
  sub->add_option("--repeat", arguments->repeat, "times of each kind (on a GPU, of 4 steps each)")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  sub->add_option("--threads", arguments->threads, "0: all cores")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  add_enum_option(*sub, "--layer-algorithm", arguments->layer_algorithm,
                  "auto, keep, gram, or on a GPU direct");
  sub->add_flag("--json", arguments->json, "print one JSON object with all figures");
  // How the program calls itself to measure memory, and how tests/compare/ lets it take turns.
  auto* only = sub->add_option("--only", arguments->only);
  only->check(CLI::IsMember({"private", "plain"}))->group("");
  sub->add_flag("--by-turns", arguments->by_turns)->needs(only)->group("");
  sub->callback([arguments] { run(*arguments); });
}

}  // namespace sfumato::cli
