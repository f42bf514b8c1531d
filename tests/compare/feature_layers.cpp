// What every layer of a feature network gives for some images: tests/compare/feature_networks.py
// holds it against PyTorch's.
//   feature_layers NETWORK WEIGHTS.safetensors IMAGES.safetensors OUT.safetensors
// Any weights are taken. IMAGES holds "images", uint8 [n, H, W, C]. Standard output: images per
// second of a second pass, after one that warms up.
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <map>

#include "features/networks/efficientnet_lite0.h"
#include "features/networks/inception.h"
#include "features/networks/lenet.h"
#include "features/networks/squeezenet.h"
#include "sfumato/core/error.h"
#include "sfumato/models/tensor_file.h"

namespace sfumato {
namespace {

std::unique_ptr<LayeredNetwork> network_of(const std::string& name, const NetworkWeights& weights) {
  if (name == "squeezenet") return squeezenet_of(weights);
  if (name == "efficientnet-lite0") return efficientnet_lite0_of(weights);
  if (name == "lenet") return lenet_of(weights);
  if (name == "inception") return inception_of(weights, InceptionResizing::kTensorFlow1);
  if (name == "inception-clean") return inception_of(weights, InceptionResizing::kClean);
  throw UsageError(fmt::format("no network '{}'", name));
}

void run(char** arguments) {
  const at::NoGradGuard no_grad;
  const NetworkWeights weights(SafetensorsFile(arguments[2]), "any");
  const auto network = network_of(arguments[1], weights);
  const at::Tensor images = to_tensor(SafetensorsFile(arguments[3]).info("images")).to(at::kByte);
  NamedTensors seen;
  const FeatureBatch found = network->forward(
      images,
      [&](std::string_view layer, const at::Tensor& x) { seen.emplace_back(layer, x.clone()); });
  seen.emplace_back("features", found.features);
  seen.emplace_back("logits", found.logits);
  write_tensor_file(arguments[4], seen);
  const auto start = std::chrono::steady_clock::now();
  (*network)(images);
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
  std::printf("%.2f\n", static_cast<double>(images.size(0)) / spent.count());
}

}  // namespace
}  // namespace sfumato

int main(int count, char** arguments) {
  try {
    if (count != 5) throw sfumato::UsageError("feature_layers NETWORK WEIGHTS IMAGES OUT");
    sfumato::run(arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
