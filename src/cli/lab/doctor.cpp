#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "cli/lab/doctor_network.h"
#include "cli/light/program.h"
#include "cli/subcommands.h"
#include "sfumato/bench/machine.h"
#include "sfumato/bench/network_report.h"
#include "sfumato/config/paths.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/core/text.h"
#include "sfumato/core/version.h"
#include "sfumato/device/threads.h"
#include "sfumato/generate/families.h"
#include "sfumato/generate/placement.h"
#include "sfumato/train/setup.h"

namespace sfumato::cli {
namespace {

using Json = nlohmann::ordered_json;

// Machine -----------------------------------------------------------------------------------------

struct Automatic {
  Precision precision;
  MemoryFormat format;
};

void print(const Machine& m, const std::vector<Check>& checks, const Automatic& automatic) {
  fmt::print("sfumato {} ({})\n", version(), git_commit());
  fmt::print("  processor   {}, {} cores, {}\n", m.cpu_model, m.cores, fmt::join(m.simd, " "));
  fmt::print("  memory      {}, of which {} free\n", bytes_text(m.memory_bytes),
             bytes_text(m.memory_available_bytes));
  fmt::print("  LibTorch    {}, {} threads, {} kernels\n", m.torch_version, m.torch_threads,
             m.tensor_kernels);
  fmt::print("  noise       ChaCha20, {} kernels\n", m.noise_kernels);
  fmt::print("  bfloat16    {} of the processor; performance.precision=auto takes {}\n", m.cpu_bf16,
             to_string(automatic.precision));
  fmt::print(
      "  images      {} where networks train on the CPU in fp32 (performance.memory_format=auto)\n",
      to_string(automatic.format));
  if (m.gpu)
    fmt::print(
        "  GPU         {}, compute capability {}.{}, {}, of which {} free; CUDA {}, driver "
        "for {}\n",
        m.gpu->name, m.gpu->major, m.gpu->minor, bytes_text(m.gpu->memory_bytes),
        bytes_text(m.gpu_free_bytes), m.gpu->runtime, m.gpu->driver);
  else
    fmt::print("  GPU         none: {}\n", m.why_no_gpu);
  for (const Check& check : checks)
    fmt::print("  {:<4}        {}: {}\n", check.ok ? "ok" : "FAIL", check.name, check.detail);
}

Json to_json(const Machine& m) {
  Json gpu = nullptr;
  if (m.gpu)
    gpu = {{"name", m.gpu->name},
           {"compute_capability", fmt::format("{}.{}", m.gpu->major, m.gpu->minor)},
           {"multiprocessors", m.gpu->multiprocessors},
           {"memory_bytes", m.gpu->memory_bytes},
           {"memory_free_bytes", m.gpu_free_bytes},
           {"memory_bytes_per_s", m.gpu->memory_bytes_per_s},
           {"driver", m.gpu->driver},
           {"runtime", m.gpu->runtime}};
  Json out{{"cpu_model", m.cpu_model},
           {"cores", m.cores},
           {"simd", m.simd},
           {"memory_bytes", m.memory_bytes},
           {"memory_available_bytes", m.memory_available_bytes},
           {"torch_version", m.torch_version},
           {"torch_threads", m.torch_threads},
           {"tensor_kernels", m.tensor_kernels},
           {"noise_kernels", m.noise_kernels},
           {"cpu_bf16", m.cpu_bf16},
           {"gpu", gpu}};
  if (!m.gpu) out["why_no_gpu"] = m.why_no_gpu;
  return out;
}

void run(const ConfigOptions& options, bool json) {
  if (json) set_quiet(true);
  const auto config = load(options);
  set_threads(config->performance.threads());
  const Machine machine = describe_machine();
  const std::vector<Check> checks = run_checks(config->run.dir());
  const Automatic automatic{
      chosen_precision(Precision::kAuto, chosen_device(config->performance.device())),
      chosen_memory_format(MemoryFormat::kAuto)};
  Json out{{"version", version()},
           {"git_commit", git_commit()},
           {"machine", to_json(machine)},
           {"automatic_precision", to_string(automatic.precision)},
           {"automatic_memory_format", to_string(automatic.format)}};
  for (const Check& check : checks)
    out["checks"].push_back({{"name", check.name}, {"ok", check.ok}, {"detail", check.detail}});
  if (!json) print(machine, checks, automatic);
  // Without a configuration there is no network to look at.
  if (!options.file.empty() || !options.overrides.empty()) {
    require_paths({&config->model.init, &config->model.config, &config->gan.generator_config,
                   &config->gan.discriminator_config});
    adopt_pretrained_settings(*config);
    validate(*config);
    const NetworkReport report = report_network(*config);
    out["network"] = network_json(report);
    if (!json) print_network(report);
  }
  if (json) fmt::print("{}\n", out.dump(2));
  std::string failed;
  for (const Check& check : checks)
    if (!check.ok) failed += fmt::format("\n  {}: {}", check.name, check.detail);
  if (!failed.empty()) throw DeviceError("this machine is not ready:" + failed);
}

}  // namespace

void add_doctor(CLI::App& app) {
  struct DoctorArguments {
    ConfigOptions config;
    bool json = false;
  };
  auto arguments = std::make_shared<DoctorArguments>();
  CLI::App* sub = add_subcommand(app, "doctor");
  add_config_options(*sub, arguments->config);
  sub->add_flag("--json", arguments->json, "print one JSON object");
  sub->callback([arguments] { run(arguments->config, arguments->json); });
}

}  // namespace sfumato::cli
