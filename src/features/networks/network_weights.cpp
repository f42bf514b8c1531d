#include "features/networks/network_weights.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/conv2d.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>
#include <utility>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/place.h"
#include "sfumato/core/sha256.h"
#include "sfumato/models/tensor_file.h"

namespace sfumato {

namespace fs = std::filesystem;

at::Tensor FoldedConv::operator()(const at::Tensor& x) const {
  return at::conv2d(x, weight, bias, stride, padding, 1, groups);
}

at::Tensor FoldedConv::relu(const at::Tensor& x) const { return (*this)(x).relu_(); }

NetworkWeights::NetworkWeights(Source source, std::string origin, std::string sha256)
    : source_(std::move(source)), origin_(std::move(origin)), sha256_(std::move(sha256)) {}

NetworkWeights::NetworkWeights(const SafetensorsFile& file, std::string sha256)
    : origin_(file.path().string()), sha256_(std::move(sha256)) {
  std::map<std::string, at::Tensor> tensors;
  for (const std::string& name : file.names()) tensors[name] = to_tensor(file.info(name));
  source_ = [tensors = std::move(tensors)](const std::string& name, const std::vector<int64_t>&) {
    const auto found = tensors.find(name);
    return found == tensors.end() ? at::Tensor() : found->second;
  };
}

at::Tensor NetworkWeights::tensor(const std::string& name,
                                  const std::vector<int64_t>& shape) const {
  const at::Tensor tensor = source_(name, shape);
  if (!tensor.defined())
    throw DataError(fmt::format(
        "'{}' holds no tensor '{}': it is incomplete, or not of this network", origin_, name));
  if (tensor.sizes() != at::IntArrayRef(shape))
    throw DataError(fmt::format(
        "tensor '{}' of '{}' has the shape {}, and this network's has {}: they are of another one",
        name, origin_, fmt::join(tensor.sizes(), "x"), fmt::join(shape, "x")));
  if (!tensor.isfinite().all().item<bool>())
    throw DataError(
        fmt::format("tensor '{}' of '{}' holds NaN or infinity: it is damaged", name, origin_));
  return tensor.to(at::kFloat).contiguous();
}

FoldedConv NetworkWeights::conv(const std::string& name, const std::vector<int64_t>& shape) const {
  FoldedConv conv;
  conv.weight = tensor(name + ".weight", shape);
  conv.bias = tensor(name + ".bias", {shape[0]});
  return conv;
}

FoldedConv NetworkWeights::normalised(const std::string& conv, const std::string& norm, double eps,
                                      const std::vector<int64_t>& shape) const {
  const at::Tensor weight = tensor(conv + ".weight", shape).to(at::kDouble);
  const auto of_channels = [&](const char* part) {
    return tensor(norm + part, {shape[0]}).to(at::kDouble);
  };
  const at::Tensor scale = of_channels(".weight") / (of_channels(".running_var") + eps).sqrt();
  FoldedConv folded;
  folded.weight = (weight * scale.view({-1, 1, 1, 1})).to(at::kFloat);
  folded.bias = (of_channels(".bias") - of_channels(".running_mean") * scale).to(at::kFloat);
  return folded;
}

fs::path weights_path(const FeatureRequest& request, const KnownWeights& known) {
  if (request.weights.empty()) {
    const fs::path folder = known.folder.empty() ? fs::path() : shipped(known.folder);
    if (!folder.empty()) return folder / known.file;
    throw UsageError(
        fmt::format("features '{}' need --weights FILE; {}", known.network, known.source));
  }
  std::error_code ignored;  // what cannot be looked at is not there
  const fs::path path =
      fs::is_directory(request.weights, ignored) ? request.weights / known.file : request.weights;
  if (!fs::exists(path, ignored))
    throw DataError(fmt::format("'{}' does not exist, and features '{}' need it; {}", path.string(),
                                known.network, known.source));
  return path;
}

std::string file_sha256(const fs::path& path) {
  const MappedFile file(path);
  return sha256_hex({reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()});
}

NetworkWeights read_known_weights(const FeatureRequest& request, const KnownWeights& known) {
  const fs::path path = weights_path(request, known);
  const std::string sha256 = file_sha256(path);
  if (sha256 != known.sha256)
    throw DataError(fmt::format(
        "'{}' has the SHA-256 {}, and the weights of '{}', by which numbers can be compared, have "
        "{}; {}",
        path.string(), sha256, known.network, known.sha256, known.source));
  return NetworkWeights(SafetensorsFile(path), sha256);
}

}  // namespace sfumato
