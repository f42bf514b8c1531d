#include "sfumato/bench/gpu_limits.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "sfumato/core/error.h"
#include "sfumato/core/text.h"

namespace sfumato {
namespace {

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

bool contains(const std::string& text, const char* word) {
  return text.find(word) != std::string::npos;
}

/// The entry of known_gpus() that a driver's name belongs to; empty: none.
std::string kind_of(const std::string& driver_name) {
  const std::string name = lower(driver_name);
  const bool pcie = contains(name, "pcie"), nvl = contains(name, "nvl");
  if (contains(name, "b200") && !contains(name, "gb200")) return "B200";
  if (contains(name, "h200") && !contains(name, "gh200")) return nvl ? "H200 NVL" : "H200";
  if (contains(name, "h100")) return pcie ? "H100 PCIe" : nvl ? "H100 NVL" : "H100";
  if (!contains(name, "a100")) return {};
  if (!contains(name, "80gb")) return "A100 40GB";
  return pcie ? "A100 80GB PCIe" : "A100 80GB";
}

}  // namespace

const std::vector<GpuLimits>& known_gpus() {
  // NVIDIA's data sheets; where they quote rates with sparsity, half of them. Without a form factor
  // in its name the SXM part is meant.
  static const std::vector<GpuLimits> gpus = {
      {"A100 40GB", 312e12, 156e12, 19.5e12, 1.555e12},
      {"A100 80GB", 312e12, 156e12, 19.5e12, 2.039e12},
      {"A100 80GB PCIe", 312e12, 156e12, 19.5e12, 1.935e12},
      {"H100", 989e12, 494e12, 67e12, 3.35e12},
      {"H100 PCIe", 756e12, 378e12, 51e12, 2.0e12},
      {"H100 NVL", 835e12, 417e12, 60e12, 3.9e12},
      {"H200", 989e12, 494e12, 67e12, 4.8e12},
      {"H200 NVL", 835e12, 417e12, 60e12, 4.8e12},
      {"B200", 2250e12, 1100e12, 0, 8.0e12},
  };
  return gpus;
}

GpuLimits limits_by_name(const std::string& name) {
  std::vector<std::string> names;
  for (const GpuLimits& gpu : known_gpus()) {
    if (lower(gpu.name) == lower(name)) return gpu;
    names.push_back(gpu.name);
  }
  std::string list;
  for (const std::string& each : names) list += (list.empty() ? "" : ", ") + each;
  throw UsageError(fmt::format("nothing is known of a GPU '{}'; known: {}{}", name, list,
                               did_you_mean(name, names)));
}

GpuLimits limits_of(const GpuFacts& facts) {
  const std::string kind = kind_of(facts.name);
  if (!kind.empty()) return limits_by_name(kind);
  GpuLimits limits;
  limits.name = facts.name;
  limits.bytes_per_s = facts.memory_bytes_per_s;
  return limits;
}

double least_seconds(double flops, double flops_per_s, double bytes, double bytes_per_s) {
  const double by_flops = flops_per_s > 0 ? flops / flops_per_s : 0;
  const double by_bytes = bytes_per_s > 0 ? bytes / bytes_per_s : 0;
  return std::max(by_flops, by_bytes);
}

}  // namespace sfumato
