#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/lab/bench_case.h"
#include "cli/lab/bench_device.h"
#include "cli/lab/bench_kernels.h"
#include "cli/lab/bench_project.h"
#include "cli/lab/bench_ranks.h"
#include "cli/lab/bench_step.h"
#include "cli/light/program.h"
#include "cli/subcommands.h"
#include "sfumato/bench/bench_network.h"
#include "sfumato/bench/micro_benchmarks.h"
#include "sfumato/bench/step_benchmark.h"
#include "sfumato/core/bound_text.h"
#include "sfumato/core/error.h"
#include "sfumato/device/threads.h"
#include "sfumato/train/setup.h"

namespace sfumato::cli {
namespace {

using Json = nlohmann::ordered_json;

struct BenchArguments {
  std::string network, beside;
  ComputeDevice device = ComputeDevice::kCpu;
  Precision precision = Precision::kFp32;
  int64_t count = 10'000'000, batch = 16, steps = 10, threads = 0;
  int repeat = 7;
  bool json = false;
};

void print_gpu_noise(const BenchArguments& arguments, const NoiseTimings& t) {
  const auto count = static_cast<double>(t.count);
  const double ours = count / t.chacha.median, torch = count / t.torch.median;
  if (arguments.json) {
    const Json out{{"count", t.count},
                   {"device", to_string(t.device)},
                   {"chacha_normals_per_s", ours},
                   {"torch_normals_per_s", torch},
                   {"ratio", ours / torch},
                   {"chacha", timing_json(t.chacha)},
                   {"torch", timing_json(t.torch)}};
    fmt::print("{}\n", out.dump(2));
    return;
  }
  fmt::print(
      "{} standard normals on the GPU, medians of {}\n"
      "  ChaCha20 {:.2f} G/s   torch {:.2f} G/s   {:.2f} times torch\n",
      t.count, arguments.repeat, ours * 1e-9, torch * 1e-9, ours / torch);
}

void run_noise(const BenchArguments& arguments) {
  set_threads(arguments.threads);
  const NoiseTimings t = benchmark_noise(arguments.count, arguments.repeat, arguments.device);
  if (t.device != ComputeDevice::kCpu) return print_gpu_noise(arguments, t);
  const auto rate = [&](const Timing& timing) {
    return static_cast<double>(t.count) / timing.median;
  };
  const double ratio = rate(t.chacha) / rate(t.torch);
  const double ratio_one = rate(t.chacha_one_thread) / rate(t.torch_one_thread);
  if (arguments.json) {
    const Json out{{"count", t.count},
                   {"device", to_string(t.device)},
                   {"threads", t.threads},
                   {"chacha_normals_per_s", rate(t.chacha)},
                   {"chacha_one_thread_normals_per_s", rate(t.chacha_one_thread)},
                   {"torch_normals_per_s", rate(t.torch)},
                   {"torch_one_thread_normals_per_s", rate(t.torch_one_thread)},
                   {"ratio", ratio},
                   {"ratio_one_thread", ratio_one},
                   {"chacha", timing_json(t.chacha)},
                   {"chacha_one_thread", timing_json(t.chacha_one_thread)},
                   {"torch", timing_json(t.torch)},
                   {"torch_one_thread", timing_json(t.torch_one_thread)}};
    fmt::print("{}\n", out.dump(2));
    return;
  }
  fmt::print("{} standard normals, medians of {}\n", t.count, arguments.repeat);
  const auto line = [&](int threads, const Timing& ours, const Timing& torch, double factor) {
    fmt::print("  {:>3} thread{}  ChaCha20 {:7.1f} M/s   torch {:7.1f} M/s   {:.2f} times torch\n",
               threads, threads == 1 ? " " : "s", rate(ours) * 1e-6, rate(torch) * 1e-6, factor);
  };
  line(1, t.chacha_one_thread, t.torch_one_thread, ratio_one);
  if (t.threads > 1) line(t.threads, t.chacha, t.torch, ratio);
}

void run_account(const BenchArguments& arguments) {
  const AccountTimings t = benchmark_account(arguments.repeat);
  if (arguments.json) {
    Json out{{"sample_rate", t.sample_rate},
             {"noise_multiplier", t.noise_multiplier},
             {"steps", t.steps},
             {"delta", t.delta},
             {"target_epsilon", t.target_epsilon}};
    for (const AccountTimings::Row& row : t.rows)
      out[to_string(row.accountant)] = {
          {"epsilon", row.epsilon},
          {"calibrated_noise_multiplier", row.calibrated_noise_multiplier},
          {"account", timing_json(row.epsilon_seconds)},
          {"calibrate", timing_json(row.calibrate_seconds)}};
    fmt::print("{}\n", out.dump(2));
    return;
  }
  fmt::print("sample rate {}, {} steps, delta {}\n", t.sample_rate, t.steps, t.delta);
  for (const AccountTimings::Row& row : t.rows)
    fmt::print(
        "  {}: epsilon of noise multiplier {}: {} in {:.2f} ms; noise multiplier for epsilon "
        "{}: "
        "{:.6g} in {:.2f} ms\n",
        to_string(row.accountant), t.noise_multiplier, upper_bound_text(row.epsilon),
        row.epsilon_seconds.median * 1e3, t.target_epsilon, row.calibrated_noise_multiplier,
        row.calibrate_seconds.median * 1e3);
}

Json to_json(const std::string& network, const SampleTimings& t) {
  return {{"network", network},
          {"batch", t.batch},
          {"steps", t.steps},
          {"images_per_s", t.images_per_s()},
          {"network_calls_per_s", t.images_per_s() * static_cast<double>(t.steps)},
          {"batch_seconds", timing_json(t.seconds)},
          {"batch_processor_seconds", timing_json(t.processor_seconds)}};
}

void print(const std::string& network, const SampleTimings& t) {
  fmt::print("{}: {} images {} in {:.3f} s: {:.2f} images/s\n", network, t.batch,
             t.steps == 1 ? "in one pass" : fmt::format("of {} DDIM steps", t.steps),
             t.seconds.median, t.images_per_s());
}

void run_sample(const BenchArguments& arguments) {
  set_threads(arguments.threads);
  const StepCase first =
      arguments.network.empty() ? builtin_step_cases().front() : step_case_from(arguments.network);
  std::vector<std::string> names{first.name};
  std::vector<nlohmann::json> networks;
  networks.push_back(first.network);  // in braces a copy would become an array of one
  if (!arguments.beside.empty()) {
    names.push_back(arguments.beside);
    networks.push_back(describe_networks(arguments.beside));
  }
  const std::vector<SampleTimings> timings = benchmark_sampling(
      networks,
      {arguments.batch, arguments.steps, arguments.repeat, arguments.device, arguments.precision});
  const double ratio =
      timings.size() > 1 ? timings[0].images_per_s() / timings[1].images_per_s() : 0;
  if (arguments.json) {
    Json out = to_json(names[0], timings[0]);
    out["device"] = to_string(arguments.device);
    out["precision"] = to_string(arguments.precision);
    if (timings.size() > 1) {
      out["beside"] = to_json(names[1], timings[1]);
      out["rate_over_beside"] = ratio;
    }
    fmt::print("{}\n", out.dump(2));
    return;
  }
  for (size_t i = 0; i < timings.size(); ++i) print(names[i], timings[i]);
  if (timings.size() > 1) fmt::print("the first draws {:.2f} times as many a second\n", ratio);
}

CLI::App* add(CLI::App& parent, const std::string& name, const std::string& help,
              const std::shared_ptr<BenchArguments>& arguments,
              void (*run)(const BenchArguments&)) {
  CLI::App* sub = parent.add_subcommand(name, help);
  sub->add_option("--repeat", arguments->repeat, "measurements; the median is reported")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  sub->add_flag("--json", arguments->json, "print one JSON object with all figures");
  sub->callback([arguments, run] { run(*arguments); });
  return sub;
}

void add_threads(CLI::App& sub, BenchArguments& arguments) {
  sub.add_option("--threads", arguments.threads, "0: all cores")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
}

}  // namespace

void add_bench(CLI::App& app) {
  CLI::App* bench = add_subcommand(app, "bench");
  bench->require_subcommand(1);
  add_bench_step(*bench);
  add_bench_kernels(*bench);
  add_bench_project(*bench);
  add_bench_ranks(*bench);

  auto noise = std::make_shared<BenchArguments>();
  CLI::App* sub =
      add(*bench, "noise", "secure normals per second against torch's", noise, run_noise);
  sub->add_option("--count", noise->count, "normals")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 31))
      ->capture_default_str();
  add_device_option(*sub, noise->device);
  add_threads(*sub, *noise);

  auto account = std::make_shared<BenchArguments>();
  add(*bench, "account", "one epsilon and one calibration", account, run_account);

  auto sample = std::make_shared<BenchArguments>();
  sample->repeat = 3;
  sub = add(*bench, "sample", "images drawn per second", sample, run_sample);
  sub->add_option("--network", sample->network,
                  "config.json of a UNet or of a GAN's generator, or a folder with one "
                  "(default: a 1.6 M-parameter 28x28 UNet)");
  sub->add_option("--beside", sample->beside,
                  "another, which draws in turns with the first; prints the ratio");
  sub->add_option("--steps", sample->steps, "DDIM steps of a UNet")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  sub->add_option("--batch", sample->batch, "images drawn together")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  add_device_option(*sub, sample->device);
  add_precision_option(*sub, sample->precision);
  add_threads(*sub, *sample);
}

}  // namespace sfumato::cli
