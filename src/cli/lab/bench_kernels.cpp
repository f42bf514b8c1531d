#include "cli/lab/bench_kernels.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/lab/bench_device.h"
#include "sfumato/bench/kernel_benchmark.h"
#include "sfumato/device/threads.h"
#include "sfumato/train/setup.h"

namespace sfumato::cli {
namespace {

using Json = nlohmann::ordered_json;

struct BenchKernelsArguments {
  KernelBenchmarkOptions options;
  int64_t threads = 0;
  bool json = false;
};

Json positive_or_null(double value) { return value > 0 ? Json(value) : Json(nullptr); }

Json to_json(const KernelRow& row) {
  Json out{{"kernel", row.kernel},    {"shape", row.shape}, {"element", row.element},
           {"layers", row.layers},    {"flops", row.flops}, {"bytes", row.bytes},
           {"measured", row.measured}};
  if (!row.note.empty()) out["note"] = row.note;
  if (!row.measured) return out;
  out["min_s"] = row.seconds.min;
  out["median_s"] = row.seconds.median;
  out["tflops_per_s"] = row.flops / row.seconds.min * 1e-12;
  out["gbytes_per_s"] = row.bytes / row.seconds.min * 1e-9;
  out["share_of_limit"] = positive_or_null(row.share);
  if (row.library_summed_s <= 0) return out;
  out["library_summed_s"] = row.library_summed_s;
  out["library_per_example_s"] = row.library_per_example_s;
  // How many times as fast as the library's summed gradient, and its per-example ones, ours are.
  out["rate_over_library_summed"] = row.library_summed_s / row.seconds.min;
  out["rate_over_library_per_example"] = row.library_per_example_s / row.seconds.min;
  return out;
}

Json to_json(const KernelBenchmarkOptions& options, const KernelBenchmark& result) {
  const GpuLimits& limits = result.limits;
  Json out{{"device", to_string(options.device)},
           {"limits_of", limits.name},
           {"bf16_flops_per_s", positive_or_null(limits.bf16_flops_per_s)},
           {"tf32_flops_per_s", positive_or_null(limits.tf32_flops_per_s)},
           {"fp32_flops_per_s", positive_or_null(limits.fp32_flops_per_s)},
           {"bytes_per_s", positive_or_null(limits.bytes_per_s)},
           {"repeat", options.repeat},
           {"examples", options.examples},
           {"draws", options.draws},
           {"rows", Json::array()},
           {"totals", Json::array()}};
  for (const KernelRow& row : result.rows) out["rows"].push_back(to_json(row));
  for (const KernelTotals& t : result.totals)
    out["totals"].push_back({{"element", t.element},
                             {"seconds", t.seconds},
                             {"library_summed_s", t.library_summed_s},
                             {"library_per_example_s", t.library_per_example_s}});
  return out;
}

void print(const KernelRow& row, size_t kernel_width, size_t shape_width) {
  fmt::print("  {:<{}}  {:<{}}  {:<4}", row.kernel, kernel_width, row.shape, shape_width,
             row.element);
  if (!row.measured) {
    fmt::print("  {}\n", row.note);
    return;
  }
  fmt::print(" {:>9.3f} {:>9.3f} {:>8} {:>8.1f} {:>6}", row.seconds.min * 1e3,
             row.seconds.median * 1e3,
             row.flops > 0 ? fmt::format("{:.2f}", row.flops / row.seconds.min * 1e-12) : "",
             row.bytes / row.seconds.min * 1e-9,
             row.share > 0 ? fmt::format("{:.0f} %", 100 * row.share) : "");
  if (row.library_summed_s > 0)
    fmt::print(" {:>8.2f} {:>9.2f}", row.library_summed_s / row.seconds.min,
               row.library_per_example_s / row.seconds.min);
  fmt::print("{}{}\n", row.note.empty() ? "" : "  ", row.note);
}

void print(const KernelBenchmarkOptions& options, const KernelBenchmark& result) {
  size_t kernel_width = 0, shape_width = 0;
  for (const KernelRow& row : result.rows) {
    if (!row.measured && options.device != ComputeDevice::kCuda) continue;
    kernel_width = std::max(kernel_width, row.kernel.size());
    shape_width = std::max(shape_width, row.shape.size());
  }
  if (options.device == ComputeDevice::kCuda)
    fmt::print(
        "{}: {:.0f} GB/s of memory{}; the second-level cache is emptied before every run\n"
        "layers of google/ddpm-cifar10-32: {} examples of {} draws. x summed, x per ex.: "
        "rate over the library's\nfor the gradient summed over the batch, and for per-example "
        "gradients\n\n",
        result.limits.name, result.limits.bytes_per_s * 1e-9,
        result.limits.bf16_flops_per_s > 0
            ? fmt::format(", {:.0f} TFLOP/s bf16, {:.0f} tf32 (data sheet)",
                          result.limits.bf16_flops_per_s * 1e-12,
                          result.limits.tf32_flops_per_s * 1e-12)
            : "; its FLOP limits are not known",
        options.examples, options.draws);
  else
    fmt::print("CPU: a pass over 256 MiB in place moves {:.1f} GB/s; shares are of that\n\n",
               result.limits.bytes_per_s * 1e-9);
  const bool library = options.device == ComputeDevice::kCuda;
  fmt::print("  {:<{}}  {:<{}}       {:>9} {:>9} {:>8} {:>8} {:>6}{}\n", "kernel", kernel_width,
             "shape", shape_width, "min ms", "median", "TFLOP/s", "GB/s", "share",
             library ? " x summed x per ex." : "");
  std::string need_gpu;
  for (const KernelRow& row : result.rows) {
    if (row.measured || options.device == ComputeDevice::kCuda)
      print(row, kernel_width, shape_width);
    else if (need_gpu.find(" " + row.kernel) == std::string::npos)
      need_gpu += (need_gpu.empty() ? " " : ", ") + row.kernel;
  }
  if (!need_gpu.empty()) fmt::print("\nneeds a GPU:{}\n", need_gpu);
  for (const KernelTotals& t : result.totals)
    fmt::print(
        "\nall weight gradients, {}: {:.3f} ms; the library's summed gradient {:.3f} ms "
        "({:.2f} of its rate), its per-example gradients {:.3f} ms ({:.2f} times as fast)\n",
        t.element, t.seconds * 1e3, t.library_summed_s * 1e3, t.library_summed_s / t.seconds,
        t.library_per_example_s * 1e3, t.library_per_example_s / t.seconds);
}

void run(const BenchKernelsArguments& arguments) {
  set_threads(arguments.threads);
  const KernelBenchmark result = benchmark_kernels(arguments.options);
  if (arguments.json)
    fmt::print("{}\n", to_json(arguments.options, result).dump(2));
  else
    print(arguments.options, result);
}

}  // namespace

void add_bench_kernels(CLI::App& bench) {
  auto arguments = std::make_shared<BenchKernelsArguments>();
  CLI::App* sub = bench.add_subcommand(
      "kernels", "every kernel against the limits of the machine and against the library");
  add_device_option(*sub, arguments->options.device);
  const auto positive = CLI::Range(int64_t{1}, int64_t{1'000'000});
  sub->add_option("--examples", arguments->options.examples, "of the layers' batch")
      ->check(positive)
      ->capture_default_str();
  sub->add_option("--draws", arguments->options.draws, "noise draws of each example")
      ->check(positive)
      ->capture_default_str();
  sub->add_option("--repeat", arguments->options.repeat, "runs of each kernel")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  sub->add_option("--threads", arguments->threads, "0: all cores")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  sub->add_flag("--json", arguments->json, "print one JSON object with all figures");
  sub->callback([arguments] { run(*arguments); });
}

}  // namespace sfumato::cli
