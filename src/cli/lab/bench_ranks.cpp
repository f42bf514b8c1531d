#include "cli/lab/bench_ranks.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "cli/lab/bench_device.h"
#include "sfumato/bench/rank_benchmark.h"
#include "sfumato/core/log.h"
#include "sfumato/core/text.h"
#include "sfumato/device/threads.h"
#include "sfumato/dist/join_ranks.h"

namespace sfumato::cli {
namespace {

using Json = nlohmann::ordered_json;

struct Arguments {
  std::string network, generator, case_name = "cifar10";
  ComputeDevice device = ComputeDevice::kCpu;
  Precision precision = Precision::kFp32;
  int64_t examples = 0, draws = 0, batch = 64, threads = 1;
  int repeat = 3;
  bool json = false;
};

StepCase case_of(const Arguments& arguments) {
  StepCase result = arguments.network.empty()
                        ? builtin_step_case(arguments.case_name)
                        : step_case_from(arguments.network, arguments.generator);
  if (arguments.examples > 0) result.examples = arguments.examples;
  if (arguments.draws > 0) result.draws = arguments.draws;
  result.device = arguments.device;
  result.precision = arguments.precision;
  return result;
}

Json to_json(const Timing& t) {
  return {{"min_s", t.min}, {"median_s", t.median}, {"max_s", t.max}};
}

Json to_json(const Arguments& arguments, const RankedStep& step, const RankTimings& t) {
  return {{"ranks", t.ranks},
          {"threads", at::get_num_threads()},
          {"repeat", step.repeat},
          {"device", to_string(arguments.device)},
          {"precision", to_string(arguments.precision)},
          {"network", step.step_case.name},
          {"parameters", t.parameters},
          {"batch", step.batch},
          {"examples", step.step_case.examples},
          {"draws", step.step_case.draws},
          {"alone", to_json(t.alone)},
          {"apart", to_json(t.apart)},
          {"together", to_json(t.together)},
          {"exchange", to_json(t.exchange)},
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

void run(const Arguments& arguments) {
  if (arguments.json) set_quiet(true);
  const std::shared_ptr<Communicator> ranks = join_ranks();
  show_gpu_of_rank(*ranks);
  const auto cores = static_cast<int64_t>(std::thread::hardware_concurrency());
  set_threads(threads_of_rank(arguments.threads, cores, *ranks));
  RankedStep step;
  step.step_case = case_of(arguments);
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
  auto arguments = std::make_shared<Arguments>();
  CLI::App* sub = bench.add_subcommand(
      "ranks", "a private step in one process and in several, which torchrun or the like starts");
  auto* network = sub->add_option("--network", arguments->network,
                                  "config.json or a folder with one; of a GAN the discriminator's, "
                                  "or a folder with both networks");
  sub->add_option("--generator", arguments->generator,
                  "config.json of the generator whose fakes that discriminator sees")
      ->needs(network);
  sub->add_option("--case", arguments->case_name, "a built-in network")
      ->check(CLI::IsMember(step_case_names()))
      ->excludes(network)
      ->capture_default_str();
  const auto positive = CLI::Range(int64_t{1}, int64_t{1'000'000});
  sub->add_option("--batch", arguments->batch, "logical batch, which the processes share")
      ->check(positive)
      ->capture_default_str();
  sub->add_option("--examples", arguments->examples, "physical batch (default: the case's, or 8)")
      ->check(positive);
  sub->add_option("--draws", arguments->draws,
                  "noise draws of each example; of a GAN its image and fakes (default: the case's)")
      ->check(positive);
  sub->add_option("--repeat", arguments->repeat, "times of each kind")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  sub->add_option("--threads", arguments->threads, "of each process; 0: its share of the cores")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  add_device_options(*sub, arguments->device, &arguments->precision);
  sub->add_flag("--json", arguments->json, "print one JSON object with all figures");
  sub->callback([arguments] { run(*arguments); });
}

}  // namespace sfumato::cli
