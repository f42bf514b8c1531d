#include <ATen/ops/cat.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "cli/lab/enum_option.h"
#include "cli/light/program.h"
#include "cli/subcommands.h"
#include "sfumato/audit/clipped_sum_inspector.h"
#include "sfumato/core/log.h"
#include "sfumato/device/threads.h"
#include "sfumato/generate/diffusion/denoiser_probe.h"
#include "sfumato/grad/gradient_engine.h"
#include "sfumato/models/tensor_file.h"
#include "sfumato/run/selection_mark.h"

namespace sfumato::cli {
namespace {

// Bounds the memory; the results do not depend on it beyond rounding.
constexpr int64_t kExamplesAtOnce = 8;

struct ProbeOptions {
  std::string model, inputs, out;
  std::optional<double> clip_norm_l2;
  std::string layer_algorithm = "auto";
  Precision precision = Precision::kFp32;
  int threads = 0;
};

void run_probe(const ProbeOptions& options) {
  check_may_leave(options.model, options.out);
  set_threads(options.threads);
  const AlgorithmPolicy policy = parse_enum<AlgorithmPolicy>(options.layer_algorithm);
  DenoiserProbe probe(options.model, options.inputs, options.precision);
  ClipOptions clip;
  clip.clip_norm_l2 = options.clip_norm_l2.value_or(1);
  GradientEngine engine(probe.parameters(), clip, policy);
  std::vector<at::Tensor> outputs, losses, norms;
  for (int64_t first = 0; first < probe.examples(); first += kExamplesAtOnce) {
    const int64_t count = std::min(kExamplesAtOnce, probe.examples() - first);
    const BatchStatistics statistics =
        engine.accumulate(count, probe.draws(), {}, [&](Tape& tape) -> at::Tensor {
          const DenoiserProbe::Answer answer = probe.ask(first, count, &tape);
          outputs.push_back(answer.output.detach());
          return answer.losses;
        });
    losses.push_back(statistics.loss);
    norms.push_back(statistics.norm.to(at::kFloat));
  }

  at::Tensor out = at::cat(outputs, 0);
  if (probe.has_draws()) {
    std::vector<int64_t> shape = out.sizes().vec();
    shape[0] = probe.draws();
    shape.insert(shape.begin(), probe.examples());
    out = out.reshape(shape);
  }
  NamedTensors results = {{"out", out},
                          {"loss_per_sample", at::cat(losses, 0)},
                          {"grad_norm_per_sample", at::cat(norms, 0)}};
  if (options.clip_norm_l2) {
    const ClippedSum sum = engine.take();
    const std::vector<at::Tensor>& sums = ClippedSumInspector::sums(sum);
    for (std::size_t i = 0; i < sums.size(); ++i)
      results.emplace_back("clipped_sum_norm/" + engine.trainable()[i]->name,
                           at::linalg_vector_norm(sums[i].to(at::kDouble)).to(at::kFloat));
  }
  write_tensor_file(options.out, results);
  log_info(
      fmt::format("{}: {} examples of {} draws", options.out, probe.examples(), probe.draws()));
}

}  // namespace

void add_probe(CLI::App& app) {
  auto options = std::make_shared<ProbeOptions>();
  CLI::App* probe = add_subcommand(app, "probe");
  probe->add_option("model", options->model, "folder of a diffusers network or pipeline")
      ->required()
      ->type_name("FOLDER");
  probe
      ->add_option("--inputs", options->inputs,
                   "safetensors with sample [B, C, H, W] or [B, K, C, H, W] (K draws an example), "
                   "timestep and target likewise, class_labels [B] if the network has classes")
      ->required()
      ->type_name("FILE");
  probe
      ->add_option("--out", options->out,
                   "safetensors to write: out, loss_per_sample (mean squared error, mean over "
                   "draws), grad_norm_per_sample (L2 over all parameters)")
      ->required()
      ->type_name("FILE");
  probe
      ->add_option("--clip-norm", options->clip_norm_l2,
                   "also write clipped_sum_norm/KEY: the L2 norm of the sum over examples of "
                   "gradients clipped to this L2 norm, for each parameter")
      ->check(CLI::PositiveNumber);
  probe
      ->add_option("--layer-algorithm", options->layer_algorithm,
                   "how per-example norms are formed: auto, keep (the gradients themselves), gram")
      ->capture_default_str();
  add_enum_option(*probe, "--precision", options->precision,
                  "what products of the network are rounded to: fp32, bf16 or auto");
  probe->add_option("--threads", options->threads, "CPU threads; default: all")
      ->check(CLI::PositiveNumber);
  probe->callback([options] { run_probe(*options); });
}

}  // namespace sfumato::cli
