#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/privacy_text.h"
#include "cli/subcommands.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/core/text.h"
#include "sfumato/core/version.h"
#include "sfumato/train/machine.h"
#include "sfumato/train/network_report.h"
#include "sfumato/train/setup.h"

namespace sfumato::cli {
namespace {

using Json = nlohmann::ordered_json;

std::string bytes_text(int64_t bytes) { return human_bytes(static_cast<double>(bytes)); }
const char* name_of(Algorithm algorithm) {
  return algorithm == Algorithm::kKeep ? "keep" : "gram";
}

// Machine -----------------------------------------------------------------------------------------

void print(const Machine& m, const std::vector<Check>& checks) {
  fmt::print("sfumato {} ({})\n", version(), git_commit());
  fmt::print("  processor   {}, {} cores, {}\n", m.cpu_model, m.cores, fmt::join(m.simd, " "));
  fmt::print("  memory      {}, of which {} free\n", bytes_text(m.memory_bytes),
             bytes_text(m.memory_available_bytes));
  fmt::print("  LibTorch    {}, {} threads, {} kernels\n", m.torch_version, m.torch_threads,
             m.tensor_kernels);
  fmt::print("  noise       ChaCha20, {} kernels\n", m.noise_kernels);
  fmt::print("  CUDA        {}\n", m.cuda_kernels ? "kernels are compiled in" : "CPU build");
  for (const Check& check : checks)
    fmt::print("  {:<4}        {}: {}\n", check.ok ? "ok" : "FAIL", check.name, check.detail);
}

Json to_json(const Machine& m) {
  return {{"cpu_model", m.cpu_model},
          {"cores", m.cores},
          {"simd", m.simd},
          {"memory_bytes", m.memory_bytes},
          {"memory_available_bytes", m.memory_available_bytes},
          {"torch_version", m.torch_version},
          {"torch_threads", m.torch_threads},
          {"tensor_kernels", m.tensor_kernels},
          {"noise_kernels", m.noise_kernels},
          {"cuda_kernels", m.cuda_kernels}};
}

// Network -----------------------------------------------------------------------------------------

void print_layers(const NetworkReport& r) {
  size_t width = 5;
  for (const LayerChoice& layer : r.layers) width = std::max(width, layer.work.layer.size());
  fmt::print("\nper example:\n  {:<{}}  {:<9} {:>7} {:>7} {:>7} {:>12} {:>11}\n", "layer", width,
             "algorithm", "tokens", "fan-in", "fan-out", "forward MFLOP", "held");
  for (const LayerChoice& layer : r.layers)
    fmt::print("  {:<{}}  {:<9} {:>7} {:>7} {:>7} {:>13.2f} {:>11}\n", layer.work.layer, width,
               name_of(layer.algorithm), layer.work.tokens, layer.work.fan_in, layer.work.fan_out,
               forward_flops(layer) * 1e-6, human_bytes(held_bytes_per_example(layer)));
  const auto others = r.tensors - static_cast<int64_t>(r.layers.size());
  fmt::print("  and {} biases, norms and tables, whose gradients are kept\n", others);
}

void print_plan(const NetworkReport& r) {
  if (!r.plan) {
    fmt::print("plan: set mechanism.noise_multiplier or mechanism.target_epsilon to train\n");
    return;
  }
  const MechanismPlan& p = *r.plan;
  if (!p.is_private) {
    fmt::print("plan: {} steps, NOT PRIVATE\n", p.steps);
    return;
  }
  fmt::print("plan: {} steps at sample rate {}, noise multiplier {}, clip norm {} ({}):\n"
             "  epsilon {} at delta {}, {} adjacency, if the unit of privacy is {}\n",
             p.steps, p.sample_rate, p.noise_multiplier, p.clip_norm_l2, p.clipping,
             upper_bound_text(r.epsilon), p.delta, to_string(p.adjacency), p.unit);
}

void print(const NetworkReport& r) {
  fmt::print("\nnetwork: {} parameters, {} train, {} are frozen\n", r.parameters, r.trainable,
             r.parameters - r.trainable);
  fmt::print("coverage: {} of {} trainable tensors have a per-example rule; examples do not mix\n",
             r.tensors_covered, r.tensors);
  print_layers(r);
  fmt::print("\nmemory: {} for weights, average and optimizer\n", bytes_text(r.state_bytes));
  fmt::print("  {} for a pass over one example, {} over two; the budget is {}\n",
             bytes_text(r.peak_bytes_one), bytes_text(r.peak_bytes_two),
             bytes_text(r.budget_bytes));
  fmt::print("  physical batch {}: about {}\n", r.physical_batch, bytes_text(r.peak_bytes));
  print_plan(r);
}

Json to_json(const LayerChoice& layer) {
  return {{"layer", layer.work.layer},
          {"algorithm", name_of(layer.algorithm)},
          {"tokens", layer.work.tokens},
          {"fan_in", layer.work.fan_in},
          {"fan_out", layer.work.fan_out},
          {"forward_flops", forward_flops(layer)},
          {"held_bytes", held_bytes_per_example(layer)}};
}

Json to_json(const NetworkReport& r) {
  Json out{{"parameters", r.parameters},
           {"trainable", r.trainable},
           {"frozen", r.parameters - r.trainable},
           {"trainable_tensors", r.tensors},
           {"covered_tensors", r.tensors_covered},
           {"layers", Json::array()},
           {"state_bytes", r.state_bytes},
           {"peak_bytes_one_example", r.peak_bytes_one},
           {"peak_bytes_two_examples", r.peak_bytes_two},
           {"memory_budget_bytes", r.budget_bytes},
           {"physical_batch", r.physical_batch},
           {"peak_bytes", r.peak_bytes},
           {"plan", nullptr},
           {"epsilon", nullptr}};
  for (const LayerChoice& layer : r.layers) out["layers"].push_back(to_json(layer));
  if (r.plan) out["plan"] = r.plan->to_json();
  if (r.plan && std::isfinite(r.epsilon)) out["epsilon"] = r.epsilon;
  return out;
}

void run(const ConfigOptions& options, bool json) {
  if (json) set_quiet(true);
  const auto config = load(options);
  set_threads(config->performance.threads());
  const Machine machine = describe_machine();
  const std::vector<Check> checks = run_checks(config->run.dir());
  Json out{{"version", version()}, {"git_commit", git_commit()}, {"machine", to_json(machine)}};
  for (const Check& check : checks)
    out["checks"].push_back({{"name", check.name}, {"ok", check.ok}, {"detail", check.detail}});
  if (!json) print(machine, checks);
  // Without a configuration there is no network to look at.
  if (!options.file.empty() || !options.overrides.empty()) {
    const NetworkReport report = report_network(*config);
    out["network"] = to_json(report);
    if (!json) print(report);
  }
  if (json) fmt::print("{}\n", out.dump(2));
  std::string failed;
  for (const Check& check : checks)
    if (!check.ok) failed += fmt::format("\n  {}: {}", check.name, check.detail);
  if (!failed.empty()) throw DeviceError("this machine is not ready:" + failed);
}

}  // namespace

void add_doctor(CLI::App& app) {
  struct Arguments {
    ConfigOptions config;
    bool json = false;
  };
  auto arguments = std::make_shared<Arguments>();
  CLI::App* sub = app.add_subcommand(
      "doctor", "whether this machine is ready, and what a configuration would take");
  add_config_options(*sub, arguments->config);
  sub->add_flag("--json", arguments->json, "print one JSON object");
  sub->callback([arguments] { run(arguments->config, arguments->json); });
}

}  // namespace sfumato::cli
