#include "cli/lab/bench_ranks.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "cli/lab/bench_case.h"
#include "cli/lab/bench_device.h"
#include "sfumato/bench/rank_benchmark.h"
#include "sfumato/core/log.h"
#include "sfumato/core/text.h"
#include "sfumato/device/threads.h"
#include "sfumato/dist/join_ranks.h"

namespace sfumato::cli {
namespace {

using Json = nlohmann::ordered_json;

struct BenchRanksArguments {
  CaseOptions of;
  int64_t batch = 64, threads = 1;
  int repeat = 3;
  bool json = false;
};

Json to_json(const BenchRanksArguments& arguments, const RankedStep& step, const RankTimings& t) {
  return {{"ranks", t.ranks},
          {"threads", at::get_num_threads()},
          {"repeat", step.repeat},
          {"device", to_string(arguments.of.device)},
          {"precision", to_string(arguments.of.precision)},
          {"network", step.step_case.name},
          {"parameters", t.parameters},
          {"batch", step.batch},
          {"examples", step.step_case.examples},
          {"draws", step.step_case.draws},
          {"alone", timing_json(t.alone)},
          {"apart", timing_json(t.apart)},
          {"together", timing_json(t.together)},
          {"exchange", timing_json(t.exchange)},
          {"summed_bytes", t.summed_bytes},
          {"weights_bytes", t.weights_bytes},
          {"sent_bytes_per_rank", t.sent_bytes()},
          {"efficiency", t.efficiency()},
          {"machine_efficiency", t.machine_efficiency()},
          {"alone_peak_bytes", t.alone_peak_bytes},
          {"together_peak_bytes", t.together_peak_bytes}};
}

void print(const RankedStep& step, const RankTimings& t) {
  const auto time = [](const char* what, const Timing& each, const std::string& more) {
    fmt::print("  {:<34}{:>9.3f} {:>9.3f} {:>9.3f}  {}\n", what, each.min, each.median, each.max,
               more);
  };
  const auto of_whole = [](double efficiency) {
    return fmt::format("efficiency {:.1f} %", 100 * efficiency);
  };
  fmt::print("{}: {:.1f} M parameters, a logical batch of {} by {} examples of {} draws\n",
             step.step_case.name, static_cast<double>(t.parameters) * 1e-6, step.batch,
             step.step_case.examples, step.step_case.draws);
  fmt::print("  {:<34}{:>9} {:>9} {:>9}\n", "seconds of a private step", "min", "median", "max");
  time("one process", t.alone, "");
  time(fmt::format("{} processes, each on its own", t.ranks).c_str(), t.apart,
       of_whole(t.machine_efficiency()) + ": what the machine allows");
  time(fmt::format("{} processes together", t.ranks).c_str(), t.together, of_whole(t.efficiency()));
  time("exchange alone", t.exchange,
       fmt::format("{} of sums, {} of weights; a rank sends {}",
                   human_bytes(static_cast<double>(t.summed_bytes)),
                   human_bytes(static_cast<double>(t.weights_bytes)), human_bytes(t.sent_bytes())));
  std::vector<std::string> peaks;
  for (const int64_t bytes : t.together_peak_bytes)
    peaks.push_back(human_bytes(static_cast<double>(bytes)));
  fmt::print("  peak memory: {} alone; {} together\n",
             human_bytes(static_cast<double>(t.alone_peak_bytes)), fmt::join(peaks, ", "));
}

void run(const BenchRanksArguments& arguments) {
  if (arguments.json) set_quiet(true);
  const std::shared_ptr<Communicator> ranks = join_ranks();
  show_gpu_of_rank(*ranks);
  const auto cores = static_cast<int64_t>(std::thread::hardware_concurrency());
  set_threads(threads_of_rank(arguments.threads, cores, *ranks));
  RankedStep step;
  step.step_case = named_case(arguments.of);
  step.batch = arguments.batch;
  step.repeat = arguments.repeat;
  const RankTimings timings = benchmark_ranks(step, ranks);
  ranks->leave();
  if (!ranks->leads()) return;
  if (arguments.json)
    fmt::print("{}\n", to_json(arguments, step, timings).dump(2));
  else
    print(step, timings);
}

}  // namespace

void add_bench_ranks(CLI::App& bench) {
  auto arguments = std::make_shared<BenchRanksArguments>();
  CLI::App* sub = bench.add_subcommand(
      "ranks", "a private step in one process and in several, which torchrun or the like starts");
  arguments->of.case_name = "cifar10";
  add_case_options(*sub, arguments->of, "the built-in cifar10");
  add_precision_option(*sub, arguments->of.precision);
  const auto positive = CLI::Range(int64_t{1}, int64_t{1'000'000});
  sub->add_option("--batch", arguments->batch, "logical batch, which the processes share")
      ->check(positive)
      ->capture_default_str();
  sub->add_option("--repeat", arguments->repeat, "times of each kind")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  sub->add_option("--threads", arguments->threads, "of each process; 0: its share of the cores")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  sub->add_flag("--json", arguments->json, "print one JSON object with all figures");
  sub->callback([arguments] { run(*arguments); });
}

}  // namespace sfumato::cli
