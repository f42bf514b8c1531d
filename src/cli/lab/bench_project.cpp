#include "cli/lab/bench_project.h"

#include <fmt/format.h>

#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "sfumato/bench/bench_network.h"
#include "sfumato/bench/layer_list.h"
#include "sfumato/bench/step_benchmark.h"
#include "sfumato/bench/step_projection.h"
#include "sfumato/core/error.h"
#include "sfumato/core/text.h"
#include "sfumato/generate/diffusion/network_trace.h"

namespace sfumato::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kTimeGoal = 1.10;

struct BenchProjectArguments {
  std::string gpu = "H200", network, case_name = "cifar10";
  int64_t examples = 16, draws = 8, ranks = 1, batch = 4096;
  ProjectionAssumptions assumptions;
  bool json = false;
};

/// Name, value and meaning of every assumption.
struct Assumption {
  const char* name;
  double value;
  const char* what;
};

std::vector<Assumption> listed(const ProjectionAssumptions& a) {
  return {{"matrix_fraction", a.matrix_fraction, "of the tensor cores' rate, by the library"},
          {"weight_gradient_fraction", a.weight_gradient_fraction,
           "conv_weight_grad, of the library's rate for the summed gradient"},
          {"full_width", a.full_width, "output channels below which the rate falls in proportion"},
          {"memory_fraction", a.memory_fraction, "of the memory's rate, by streaming kernels"},
          {"update_fraction", a.update_fraction, "of the memory's rate, by private_update"},
          {"activation_passes", a.activation_passes,
           "reads and writes of each layer's input by norms, activations and sums"},
          {"activation_copies", a.activation_copies, "of each layer's input held for backward"},
          {"launch_seconds", a.launch_seconds, "per kernel of a recorded step"},
          {"launches_per_layer", a.launches_per_layer, "kernels, either step"},
          {"more_launches_per_layer", a.more_launches_per_layer, "kernels, private step"}};
}

Json to_json(const BenchProjectArguments& arguments, const StepCase& network, const GpuLimits& gpu,
             double parameters, const StepProjection& p, double needed, double other) {
  const double images = static_cast<double>(arguments.examples * arguments.draws);
  Json out{{"projected", true},
           {"gpu",
            {{"name", gpu.name},
             {"bf16_flops_per_s", gpu.bf16_flops_per_s},
             {"bytes_per_s", gpu.bytes_per_s}}},
           {"network", network.name},
           {"parameters", static_cast<int64_t>(parameters)},
           {"examples", arguments.examples},
           {"draws", arguments.draws},
           {"assumptions", Json::object()},
           {"terms", Json::array()},
           {"forward_flops", p.forward_flops},
           {"plain_s", p.plain_seconds},
           {"private_s", p.private_seconds},
           {"time_ratio", p.time_ratio()},
           {"draws_per_s", images / p.private_seconds},
           {"plain_bytes", p.plain_bytes},
           {"private_bytes", p.private_bytes},
           {"memory_ratio", p.memory_ratio()},
           {"per_draw_engine_bytes", other},
           {"weight_gradient_fraction_for_ratio_1.10", nullptr}};
  for (const Assumption& each : listed(arguments.assumptions))
    out["assumptions"][each.name] = each.value;
  for (const ProjectedTerm& term : p.terms)
    out["terms"].push_back({{"name", term.name},
                            {"how", term.how},
                            {"plain_s", term.plain},
                            {"private_s", term.priv}});
  if (std::isfinite(needed)) out["weight_gradient_fraction_for_ratio_1.10"] = needed;
  return out;
}

void print(const BenchProjectArguments& arguments, const StepCase& network, const GpuLimits& gpu,
           double parameters, const StepProjection& p, double needed, double other) {
  const double images = static_cast<double>(arguments.examples * arguments.draws);
  fmt::print(
      "PROJECTED, not measured: {} on one {}, bf16, {} examples of {} draws, {} "
      "parameters\n",
      network.name, gpu.name, arguments.examples, arguments.draws,
      static_cast<int64_t>(parameters));
  fmt::print(
      "\nassumed\n  {:<26}{:>10.4g}  dense bf16 FLOP/s, data sheet\n"
      "  {:<26}{:>10.4g}  bytes/s of memory, data sheet\n",
      "GPU", gpu.bf16_flops_per_s, "", gpu.bytes_per_s);
  for (const Assumption& each : listed(arguments.assumptions))
    fmt::print("  {:<26}{:>10.4g}  {}\n", each.name, each.value, each.what);
  fmt::print("\n{:<22}{:>12}{:>12}\n", "milliseconds", "plain", "private");
  for (const ProjectedTerm& term : p.terms)
    fmt::print("  {:<20}{:>12.3f}{:>12.3f}  {}\n", term.name, term.plain * 1e3, term.priv * 1e3,
               term.how);
  fmt::print("  {:<20}{:>12.3f}{:>12.3f}  ratio {:.3f}\n", "step", p.plain_seconds * 1e3,
             p.private_seconds * 1e3, p.time_ratio());
  fmt::print("  {:<20}{:>12.0f}{:>12.0f}\n", "draws per second", images / p.plain_seconds,
             images / p.private_seconds);
  fmt::print("  {:<20}{:>12}{:>12}  ratio {:.3f}\n", "peak of tensors", human_bytes(p.plain_bytes),
             human_bytes(p.private_bytes), p.memory_ratio());
  if (std::isfinite(needed))
    fmt::print("\na time ratio of {:.2f} needs weight_gradient_fraction >= {:.2f}\n", kTimeGoal,
               needed);
  else
    fmt::print("\nno weight_gradient_fraction gives a time ratio of {:.2f}\n", kTimeGoal);
  fmt::print("an engine with a float32 gradient of every draw holds at least {} ({:.1f} times)\n",
             human_bytes(other), other / p.private_bytes);
}

Json to_json(const BenchProjectArguments& arguments, const RanksProjection& p) {
  Json out{{"ranks", p.ranks},
           {"batch", arguments.batch},
           {"terms", Json::array()},
           {"sent_bytes_per_rank", p.sent_bytes},
           {"alone_s", p.alone_seconds},
           {"together_s", p.together_seconds},
           {"efficiency", p.efficiency()}};
  for (const ProjectedTerm& term : p.terms)
    out["terms"].push_back({{"name", term.name},
                            {"how", term.how},
                            {"alone_s", term.plain},
                            {"together_s", term.priv}});
  return out;
}

void print(const BenchProjectArguments& arguments, const RanksProjection& p) {
  fmt::print("\nPROJECTED, not measured: a logical batch of {} on {} GPUs; each sends {} a step\n",
             arguments.batch, p.ranks, human_bytes(p.sent_bytes));
  fmt::print("{:<22}{:>12}{:>12}\n", "milliseconds", "one GPU", fmt::format("{} GPUs", p.ranks));
  for (const ProjectedTerm& term : p.terms)
    fmt::print("  {:<20}{:>12.3f}{:>12.3f}  {}\n", term.name, term.plain * 1e3, term.priv * 1e3,
               term.how);
  fmt::print("  {:<20}{:>12.3f}{:>12.3f}  efficiency {:.2f}\n", "step", p.alone_seconds * 1e3,
             p.together_seconds * 1e3, p.efficiency());
}

void run(const BenchProjectArguments& arguments) {
  const GpuLimits gpu = limits_by_name(arguments.gpu);
  const StepCase network = arguments.network.empty() ? builtin_step_case(arguments.case_name)
                                                     : step_case_from(arguments.network);
  if (!draws_in_steps(network.network))
    throw UsageError(network.name +
                     ": steps are projected in bf16, and networks of a GAN compute in float32; "
                     "name a diffusion network");
  const std::vector<LayerWork> layers = layers_of(network.network, arguments.draws);
  const auto parameters = static_cast<double>(trainable_parameters(network.network));
  const auto& [a, b, k] = std::tie(arguments.assumptions, arguments.examples, arguments.draws);
  const StepProjection projection = project_step(layers, parameters, b, k, gpu, a);
  const double needed = fraction_needed(layers, parameters, b, k, gpu, a, kTimeGoal);
  const double other = per_draw_engine_bytes(layers, parameters, b, k, a);
  std::optional<RanksProjection> ranks;
  if (arguments.ranks > 1)
    ranks = project_ranks(projection, parameters, b, arguments.batch, arguments.ranks, gpu, a);
  if (arguments.json) {
    Json out = to_json(arguments, network, gpu, parameters, projection, needed, other);
    if (ranks) out["several_gpus"] = to_json(arguments, *ranks);
    fmt::print("{}\n", out.dump(2));
    return;
  }
  print(arguments, network, gpu, parameters, projection, needed, other);
  if (ranks) print(arguments, *ranks);
}

}  // namespace

void add_bench_project(CLI::App& bench) {
  auto arguments = std::make_shared<BenchProjectArguments>();
  CLI::App* sub = bench.add_subcommand(
      "project", "what a private and a plain step should take on a GPU that is not here");
  sub->add_option("--gpu", arguments->gpu, "kind of GPU")->capture_default_str();
  auto* network =
      sub->add_option("--network", arguments->network, "config.json or a folder with one");
  sub->add_option("--case", arguments->case_name, "a built-in network")
      ->check(CLI::IsMember(step_case_names()))
      ->excludes(network)
      ->capture_default_str();
  const auto positive = CLI::Range(int64_t{1}, int64_t{1'000'000});
  sub->add_option("--examples", arguments->examples, "physical batch")
      ->check(positive)
      ->capture_default_str();
  sub->add_option("--draws", arguments->draws, "noise draws of each example")
      ->check(positive)
      ->capture_default_str();
  const auto fraction = CLI::Range(0.01, 10.0);
  sub->add_option("--matrix-fraction", arguments->assumptions.matrix_fraction,
                  "of the tensor cores' rate that the library reaches")
      ->check(fraction)
      ->capture_default_str();
  sub->add_option("--weight-gradient-fraction", arguments->assumptions.weight_gradient_fraction,
                  "conv_weight_grad's rate over the library's for the summed gradient")
      ->check(fraction)
      ->capture_default_str();
  sub->add_option("--ranks", arguments->ranks, "GPUs that share a logical step; 1: none do")
      ->check(positive)
      ->capture_default_str();
  sub->add_option("--batch", arguments->batch, "the logical batch that they share")
      ->check(positive)
      ->capture_default_str();
  sub->add_option("--link-bytes-per-s", arguments->assumptions.link_bytes_per_s,
                  "out of a GPU to those of other nodes")
      ->check(CLI::Range(1e6, 1e13))
      ->capture_default_str();
  sub->add_flag("--json", arguments->json, "print one JSON object with all figures");
  sub->callback([arguments] { run(*arguments); });
}

}  // namespace sfumato::cli
