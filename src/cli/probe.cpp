#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <memory>

#include "cli/subcommands.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/device/threads.h"
#include "sfumato/grad/gradient_engine.h"
#include "sfumato/models/checkpoint_io.h"
#include "sfumato/models/tensor_file.h"
#include "sfumato/audit/clipped_sum_inspector.h"

namespace sfumato::cli {
namespace {

// Bounds the memory; the results do not depend on it beyond rounding.
constexpr int64_t kExamplesAtOnce = 8;

struct ProbeOptions {
  std::string model, inputs, out;
  std::optional<double> clip_norm_l2;
  std::string layer_algorithm = "auto";
  int threads = 0;
};

/// Examples with the draws laid out behind one another.
struct ProbeInputs {
  int64_t examples = 0, draws = 1;
  bool has_draws = false;  ///< [B, K, ...] rather than [B, ...]
  at::Tensor sample;       ///< [B K, C, H, W]
  at::Tensor timestep;     ///< [B K]
  at::Tensor labels;       ///< [B K] or [B K, E]; undefined for unconditional networks
  at::Tensor target;       ///< as the network's output
};

std::string text(at::IntArrayRef shape) {
  return fmt::format("[{}]", fmt::join(shape.vec(), ", "));
}

bool is_float(const TensorInfo& info) {
  return info.dtype == TensorDtype::kF16 || info.dtype == TensorDtype::kBF16 ||
         info.dtype == TensorDtype::kF32 || info.dtype == TensorDtype::kF64;
}

at::Tensor number_tensor(const TensorInfo& info) {
  const at::Tensor value = to_tensor(info);
  return is_float(info) ? value.to(at::kFloat) : value;
}

at::Tensor float32_tensor(const TensorInfo& info) { return to_tensor(info).to(at::kFloat); }

class InputReader {
 public:
  InputReader(const SafetensorsFile& file, const UNet2DConfig& config)
      : file_(file), config_(config) {}

  ProbeInputs read() {
    ProbeInputs in;
    read_sample(in);
    in.target = flat(in, "target", float32_tensor(info("target")),
                     {config_.out_channels, in.sample.size(2), in.sample.size(3)});
    in.timestep = flat(in, "timestep", number_tensor(info("timestep")), {});
    if (config_.time_embedding_type == "learned" && in.timestep.scalar_type() != at::kLong)
      fail("timestep", "must be integers, for the network has a table of timesteps");
    read_labels(in);
    return in;
  }

 private:
  [[noreturn]] void fail(const std::string& name, const std::string& defect) const {
    throw DataError(fmt::format("{}: '{}' {}", file_.path().string(), name, defect));
  }

  const TensorInfo& info(const std::string& name) const {
    if (!file_.contains(name))
      fail(name, fmt::format("is missing; the file must hold sample, timestep, target{}",
                             config_.class_conditional() ? " and class_labels" : ""));
    return file_.info(name);
  }

  void read_sample(ProbeInputs& in) const {
    const at::Tensor sample = float32_tensor(info("sample"));
    const int64_t multiple = config_.size_multiple();
    in.has_draws = sample.dim() == 5;
    const int64_t rank = sample.dim();
    if ((rank != 4 && rank != 5) || sample.numel() == 0 ||
        sample.size(rank - 3) != config_.in_channels || sample.size(rank - 2) % multiple != 0 ||
        sample.size(rank - 1) % multiple != 0)
      fail("sample", fmt::format("has shape {}; the network takes [B, {}, H, W] or [B, K, {}, H, W]"
                                 " with H and W multiples of {}", text(sample.sizes()),
                                 config_.in_channels, config_.in_channels, multiple));
    in.examples = sample.size(0);
    in.draws = in.has_draws ? sample.size(1) : 1;
    in.sample = in.has_draws ? sample.flatten(0, 1) : sample;
  }

  /// Checks that `tensor` is [B, rest...] or [B, K, rest...] as the sample is, and joins B and K.
  at::Tensor flat(const ProbeInputs& in, const std::string& name, const at::Tensor& tensor,
                  const std::vector<int64_t>& rest) const {
    std::vector<int64_t> wanted{in.examples};
    if (in.has_draws) wanted.push_back(in.draws);
    wanted.insert(wanted.end(), rest.begin(), rest.end());
    if (tensor.sizes() != at::IntArrayRef(wanted))
      fail(name, fmt::format("has shape {}; beside this sample it must be {}",
                             text(tensor.sizes()), text(wanted)));
    return in.has_draws ? tensor.flatten(0, 1) : tensor;
  }

  /// One label an example, which all its draws share, or one each draw.
  void read_labels(ProbeInputs& in) const {
    if (!config_.class_conditional()) {
      if (file_.contains("class_labels"))
        fail("class_labels", "is given, but the network has no class conditioning");
      return;
    }
    const bool identity = config_.class_embed_type == "identity";
    const bool table = !config_.class_embed_type || (!identity &&
                                                      config_.time_embedding_type == "learned");
    if (table && is_float(info("class_labels"))) fail("class_labels", "must be integers");
    at::Tensor labels = identity ? float32_tensor(info("class_labels"))
                                 : number_tensor(info("class_labels"));
    std::vector<int64_t> rest;
    if (identity) rest.push_back(config_.time_embed_dim());
    if (in.has_draws && labels.dim() == static_cast<int64_t>(rest.size()) + 1 &&
        labels.size(0) == in.examples) {
      std::vector<int64_t> each = labels.sizes().vec();
      each.insert(each.begin() + 1, in.draws);
      labels = labels.unsqueeze(1).expand(each);
    }
    in.labels = flat(in, "class_labels", labels, rest).contiguous();
  }

  const SafetensorsFile& file_;
  const UNet2DConfig& config_;
};

void run_probe(const ProbeOptions& options) {
  set_threads(options.threads);
  const AlgorithmPolicy policy = parse_enum<AlgorithmPolicy>(options.layer_algorithm);
  const LoadedUNet loaded = load_unet2d(options.model);
  UNet2D& network = *loaded.network;
  const SafetensorsFile file(options.inputs);
  const ProbeInputs in = InputReader(file, network.config()).read();

  ClipOptions clip;
  clip.clip_norm_l2 = options.clip_norm_l2.value_or(1);
  GradientEngine engine(network.parameters(), clip, policy);
  std::vector<at::Tensor> outputs, losses, norms;
  for (int64_t start = 0; start < in.examples; start += kExamplesAtOnce) {
    const int64_t count = std::min(kExamplesAtOnce, in.examples - start);
    const auto rows = [&](const at::Tensor& t) {
      return t.defined() ? t.narrow(0, start * in.draws, count * in.draws) : t;
    };
    const BatchStatistics statistics =
        engine.accumulate(count, in.draws, {}, [&](Tape& tape) -> at::Tensor {
          const at::Tensor out = network.forward(rows(in.sample), rows(in.timestep),
                                                 rows(in.labels), &tape);
          outputs.push_back(out.detach());
          return out.sub(rows(in.target)).square().reshape({count, -1}).mean({1});
        });
    losses.push_back(statistics.loss);
    norms.push_back(statistics.norm.to(at::kFloat));
  }

  at::Tensor out = at::cat(outputs, 0);
  if (in.has_draws) {
    std::vector<int64_t> shape = out.sizes().vec();
    shape[0] = in.draws;
    shape.insert(shape.begin(), in.examples);
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
  log_info(fmt::format("{}: {} examples of {} draws", options.out, in.examples, in.draws));
}

}  // namespace

void add_probe(CLI::App& app) {
  auto options = std::make_shared<ProbeOptions>();
  CLI::App* probe = app.add_subcommand(
      "probe", "run a network once on given inputs; write outputs, losses and gradient norms");
  probe->add_option("model", options->model, "folder of a diffusers UNet2DModel or pipeline")
      ->required()->type_name("FOLDER");
  probe->add_option("--inputs", options->inputs,
                    "safetensors with sample [B, C, H, W] or [B, K, C, H, W] (K draws an example), "
                    "timestep and target likewise, class_labels [B] if the network has classes")
      ->required()->type_name("FILE");
  probe->add_option("--out", options->out,
                    "safetensors to write: out, loss_per_sample (mean squared error, mean over "
                    "draws), grad_norm_per_sample (L2 over all parameters)")
      ->required()->type_name("FILE");
  probe->add_option("--clip-norm", options->clip_norm_l2,
                    "also write clipped_sum_norm/KEY: the L2 norm of the sum over examples of "
                    "gradients clipped to this L2 norm, for each parameter")
      ->check(CLI::PositiveNumber);
  probe->add_option("--layer-algorithm", options->layer_algorithm,
                    "how per-example norms are formed: auto, keep (the gradients themselves), gram")
      ->capture_default_str();
  probe->add_option("--threads", options->threads, "CPU threads; default: all")
      ->check(CLI::PositiveNumber);
  probe->callback([options] { run_probe(*options); });
}

}  // namespace sfumato::cli
