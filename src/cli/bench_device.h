#pragma once
#include <CLI/CLI.hpp>

#include <string>

namespace sfumato::cli {

/// --device and, unless `precision` is null, --precision of a benchmark.
inline void add_device_options(CLI::App& sub, std::string& device, std::string* precision) {
  sub.add_option("--device", device, "cpu or cuda")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  if (precision == nullptr) return;
  sub.add_option("--precision", *precision, "fp32; on a GPU also tf32 and bf16")
      ->check(CLI::IsMember({"fp32", "tf32", "bf16"}))
      ->capture_default_str();
}

}  // namespace sfumato::cli
