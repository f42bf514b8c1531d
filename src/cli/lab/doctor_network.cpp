#include "cli/lab/doctor_network.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "cli/light/privacy_text.h"
#include "sfumato/core/bound_text.h"
#include "sfumato/core/text.h"

namespace sfumato::cli {

std::string bytes_text(int64_t bytes) { return human_bytes(static_cast<double>(bytes)); }

namespace {

using Json = nlohmann::ordered_json;

const char* name_of(Algorithm algorithm) {
  return algorithm == Algorithm::kKeep ? "keep" : algorithm == Algorithm::kGram ? "gram" : "direct";
}

/// "keep by kernel 0.12, gram by kernel 0.31 ms".
std::string measured_text(const LayerChoice& layer) {
  std::string text;
  for (const auto& [plan, seconds] : layer.measured)
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", plan_name(plan),
                        std::isfinite(seconds) ? fmt::format("{:.3f}", seconds * 1e3)
                                               : std::string("(does not fit)"));
  return text + " ms";
}

void print_layers(const NetworkReport& r) {
  size_t width = 5;
  for (const LayerChoice& layer : r.layers) width = std::max(width, layer.work.layer.size());
  fmt::print("\nper example:\n  {:<{}}  {:<9} {:>7} {:>7} {:>7} {:>12} {:>11}\n", "layer", width,
             "algorithm", "tokens", "fan-in", "fan-out", "forward MFLOP", "held");
  for (const LayerChoice& layer : r.layers) {
    fmt::print("  {:<{}}  {:<9} {:>7} {:>7} {:>7} {:>13.2f} {:>11}\n", layer.work.layer, width,
               name_of(layer.algorithm), layer.work.tokens, layer.work.fan_in, layer.work.fan_out,
               forward_flops(layer) * 1e-6,
               human_bytes(held_bytes_per_example(layer, r.held_element_bytes)));
    if (!layer.measured.empty())
      fmt::print("    {} examples: {} takes {}\n", layer.work.examples,
                 plan_name({layer.algorithm, layer.route}), measured_text(layer));
  }
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
  fmt::print(
      "plan: {} steps at sample rate {}, noise multiplier {}, clip norm {} ({}):\n"
      "  epsilon {} at delta {}, {} adjacency, if the unit of privacy is {}\n",
      p.steps, p.sample_rate, p.noise_multiplier, p.clip_norm_l2, to_string(p.clipping),
      epsilon_text(r.epsilon), p.delta, to_string(p.adjacency), p.unit);
}

Json to_json(const LayerChoice& layer, double element_bytes) {
  Json out{{"layer", layer.work.layer},
           {"algorithm", name_of(layer.algorithm)},
           {"tokens", layer.work.tokens},
           {"fan_in", layer.work.fan_in},
           {"fan_out", layer.work.fan_out},
           {"forward_flops", forward_flops(layer)},
           {"held_bytes", held_bytes_per_example(layer, element_bytes)}};
  if (layer.measured.empty()) return out;
  out["plan"] = plan_name({layer.algorithm, layer.route});
  out["measured_examples"] = layer.work.examples;
  for (const auto& [plan, seconds] : layer.measured)
    out["measured_s"][plan_name(plan)] = std::isfinite(seconds) ? Json(seconds) : Json(nullptr);
  return out;
}

}  // namespace

void print_network(const NetworkReport& r) {
  fmt::print("\n{}: {} parameters, {} train, {} are frozen\n", r.network, r.parameters, r.trainable,
             r.parameters - r.trainable);
  fmt::print("coverage: {} of {} trainable tensors have a per-example rule; examples do not mix\n",
             r.tensors_covered, r.tensors);
  print_layers(r);
  fmt::print("\nmemory: {} for weights, average and optimizer{}\n", bytes_text(r.state_bytes),
             r.network == "network" ? "" : ", of all networks");
  fmt::print("  {} for a pass over one example, {} over two; the budget is {}\n",
             bytes_text(r.peak_bytes_one), bytes_text(r.peak_bytes_two),
             bytes_text(r.budget_bytes));
  fmt::print("  physical batch {}: about {}\n", r.physical_batch, bytes_text(r.peak_bytes));
  print_plan(r);
}

nlohmann::ordered_json network_json(const NetworkReport& r) {
  Json out{{"network", r.network},
           {"parameters", r.parameters},
           {"trainable", r.trainable},
           {"frozen", r.parameters - r.trainable},
           {"device", to_string(r.device)},
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
  for (const LayerChoice& layer : r.layers)
    out["layers"].push_back(to_json(layer, r.held_element_bytes));
  if (r.plan) out["plan"] = r.plan->to_json();
  if (r.plan && std::isfinite(r.epsilon)) out["epsilon"] = r.epsilon;
  return out;
}

}  // namespace sfumato::cli
