#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>

#include "features/networks/efficientnet_lite0.h"
#include "features/networks/inception.h"
#include "features/networks/lenet.h"
#include "features/networks/scattering.h"
#include "features/networks/squeezenet.h"
#include "sfumato/core/enum_names.h"
#include "sfumato/core/error.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/features/feature_network.h"
#include "sfumato/features/image_features.h"

namespace sfumato {
namespace {

constexpr int64_t kBatchBytes = int64_t{256} << 20;
constexpr int64_t kMostImagesOfBatch = 512;

/// What needs no weights, as a network.
class PlainFeatures : public FeatureNetwork {
 public:
  PlainFeatures(FeatureSpace space, const ImageShape& shape, FeatureFacts facts)
      : FeatureNetwork(std::move(facts)), features_(space, shape) {
    facts_.dimension = features_.dimension();
  }
  int64_t image_bytes() const override { return features_.row_bytes(); }
  FeatureBatch operator()(const at::Tensor& images) const override {
    return {features_(images), {}};
  }

 private:
  ImageFeatures features_;
};

std::unique_ptr<FeatureNetwork> make_pixels(const FeatureRequest& request) {
  FeatureFacts facts;
  facts.network = "pixels";
  facts.distance = "FD-pixels";
  facts.weights_sha256 = "none";
  facts.preprocessing = "uint8 / 255, not resized";
  return std::make_unique<PlainFeatures>(FeatureSpace::kPixels, request.shape, std::move(facts));
}

std::unique_ptr<FeatureNetwork> make_convolution(const FeatureRequest& request) {
  FeatureFacts facts;
  facts.network = "convolution";
  facts.distance = "FD-convolution";
  facts.weights_sha256 = "none (seed of the filters: sfumato convolution features 1)";
  facts.preprocessing = "uint8 / 255, not resized, edges repeated";
  return std::make_unique<PlainFeatures>(FeatureSpace::kConvolution, request.shape,
                                         std::move(facts));
}

}  // namespace

std::span<const FeatureNetworkRow> feature_networks() {
  static constexpr FeatureNetworkRow kTable[] = {
      {"convolution", "fixed random filters, blind to content", false, make_convolution},
      {"scattering", "oriented wavelets in cells of the image", false, make_scattering},
      {"pixels", "the values themselves", false, make_pixels},
      {"lenet", "a small network of public letters, for grey images", true, make_lenet},
      {"efficientnet-lite0", "ImageNet's, from a Python package", true, make_efficientnet_lite0},
      {"squeezenet", "ImageNet's, small", true, make_squeezenet},
      {"inception", "FID's, of weights that you have", true, make_inception},
      {"inception-clean", "the same after clean-fid's resizing", true, make_clean_inception}};
  return kTable;
}

std::vector<std::string> feature_network_names() {
  std::vector<std::string> names;
  for (const FeatureNetworkRow& row : feature_networks()) names.emplace_back(row.name);
  return names;
}

std::unique_ptr<FeatureNetwork> make_feature_network(const std::string& name,
                                                     const FeatureRequest& request) {
  for (const FeatureNetworkRow& row : feature_networks()) {
    if (row.name != name) continue;
    if (!request.weights.empty() && !row.takes_weights_file)
      throw UsageError(fmt::format("features '{}' take no weights file; leave out --weights '{}'",
                                   name, request.weights.string()));
    return row.make(request);
  }
  throw_unknown_name("features", name, feature_network_names());
}

FeatureBatch features_of(const FeatureNetwork& network, const at::Tensor& images) {
  const at::NoGradGuard no_grad;
  const FeatureFacts& facts = network.facts();
  const int64_t n = images.size(0);
  const int64_t batch =
      std::clamp<int64_t>(kBatchBytes / network.image_bytes(), 1, kMostImagesOfBatch);
  FeatureBatch all{at::empty({n, facts.dimension}, at::kFloat), {}};
  if (facts.num_logits > 0) all.logits = at::empty({n, facts.num_logits}, at::kFloat);
  for (int64_t begin = 0; begin < n; begin += batch) {
    if (stop_requested()) throw Interrupted("stopped; nothing was written");
    const int64_t size = std::min(batch, n - begin);
    const FeatureBatch part = network(images.narrow(0, begin, size));
    if (!part.features.isfinite().all().item<bool>())
      throw DataError(
          fmt::format("features '{}' of images {} to {} are not finite; the weights "
                      "are damaged, or not those of this network",
                      facts.network, begin, begin + size - 1));
    all.features.narrow(0, begin, size).copy_(part.features);
    if (all.logits.defined()) all.logits.narrow(0, begin, size).copy_(part.logits);
  }
  return all;
}

}  // namespace sfumato
