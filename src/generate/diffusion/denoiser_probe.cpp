#include "sfumato/generate/diffusion/denoiser_probe.h"

#include <ATen/TensorOperators.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>
#include <string>

#include "sfumato/core/error.h"
#include "sfumato/generate/placement.h"
#include "sfumato/io/json_file.h"
#include "sfumato/models/checkpoint_io.h"
#include "sfumato/models/gan_networks.h"
#include "sfumato/models/tensor_file.h"

namespace sfumato {
namespace {

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

  DenoiserProbe::Inputs read() {
    DenoiserProbe::Inputs in;
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

  void read_sample(DenoiserProbe::Inputs& in) const {
    const at::Tensor sample = float32_tensor(info("sample"));
    const int64_t multiple = config_.size_multiple();
    in.has_draws = sample.dim() == 5;
    const int64_t rank = sample.dim();
    if ((rank != 4 && rank != 5) || sample.numel() == 0 ||
        sample.size(rank - 3) != config_.in_channels || sample.size(rank - 2) % multiple != 0 ||
        sample.size(rank - 1) % multiple != 0)
      fail("sample",
           fmt::format("has shape {}; the network takes [B, {}, H, W] or [B, K, {}, H, W]"
                       " with H and W multiples of {}",
                       text(sample.sizes()), config_.in_channels, config_.in_channels, multiple));
    in.examples = sample.size(0);
    in.draws = in.has_draws ? sample.size(1) : 1;
    in.sample = in.has_draws ? sample.flatten(0, 1) : sample;
  }

  /// Checks that `tensor` is [B, rest...] or [B, K, rest...] as the sample is, and joins B and K.
  at::Tensor flat(const DenoiserProbe::Inputs& in, const std::string& name,
                  const at::Tensor& tensor, const std::vector<int64_t>& rest) const {
    std::vector<int64_t> wanted{in.examples};
    if (in.has_draws) wanted.push_back(in.draws);
    wanted.insert(wanted.end(), rest.begin(), rest.end());
    if (tensor.sizes() != at::IntArrayRef(wanted))
      fail(name, fmt::format("has shape {}; beside this sample it must be {}", text(tensor.sizes()),
                             text(wanted)));
    return in.has_draws ? tensor.flatten(0, 1) : tensor;
  }

  /// One label an example, which all its draws share, or one each draw.
  void read_labels(DenoiserProbe::Inputs& in) const {
    if (!config_.class_conditional()) {
      if (file_.contains("class_labels"))
        fail("class_labels", "is given, but the network has no class conditioning");
      return;
    }
    const bool identity = config_.class_embed_type == "identity";
    const bool table =
        !config_.class_embed_type || (!identity && config_.time_embedding_type == "learned");
    if (table && is_float(info("class_labels"))) fail("class_labels", "must be integers");
    at::Tensor labels =
        identity ? float32_tensor(info("class_labels")) : number_tensor(info("class_labels"));
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

/// DataError for the networks of a GAN, which hold no UNet to compare.
std::unique_ptr<UNet2D> network_in(const std::filesystem::path& folder) {
  for (const char* inside : {"generator/config.json", "config.json"}) {
    const std::filesystem::path file = folder / inside;
    if (!std::filesystem::exists(file)) continue;
    const nlohmann::json config = read_python_json(file);
    if (describes_generator_network(config) || describes_discriminator_network(config))
      throw DataError(
          fmt::format("'{}' is of a network of a GAN: probe is for diffusion networks, which it "
                      "compares with diffusers; name a folder with unet/ or with a UNet2DModel",
                      file.string()));
  }
  return load_unet2d(folder).network;
}

}  // namespace

DenoiserProbe::DenoiserProbe(const std::filesystem::path& model,
                             const std::filesystem::path& inputs, Precision precision)
    : network_(network_in(model)) {
  const Placement placement = open_placement(ComputeDevice::kCpu, precision);
  network_->set_product_type(placement.product_type);
  network_->set_channels_last(placement.channels_last);
  const SafetensorsFile file(inputs);
  inputs_ = InputReader(file, network_->config()).read();
}

DenoiserProbe::~DenoiserProbe() = default;

std::vector<Parameter*> DenoiserProbe::parameters() { return network_->parameters(); }

DenoiserProbe::Answer DenoiserProbe::ask(int64_t first, int64_t count, Tape* tape) {
  const auto rows = [&](const at::Tensor& t) {
    return t.defined() ? t.narrow(0, first * inputs_.draws, count * inputs_.draws) : t;
  };
  const at::Tensor out =
      network_->forward(rows(inputs_.sample), rows(inputs_.timestep), rows(inputs_.labels), tape);
  return {out, out.sub(rows(inputs_.target)).square().reshape({count, -1}).mean({1})};
}

}  // namespace sfumato
