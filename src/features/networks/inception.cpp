#include "features/networks/inception.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/max_pool2d.h>
#include <fmt/format.h>

#include <functional>
#include <initializer_list>
#include <map>

#include "features/networks/input_images.h"
#include "sfumato/core/error.h"
#include "sfumato/core/sha256.h"
#include "sfumato/core/text.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

/// Of pt_inception-2015-12-05-6726825d.pth, as pytorch-fid and torch-fidelity publish it.
constexpr KnownWeights kInception = {
    "inception", "inception-2015-12-05.safetensors",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    "get pt_inception-2015-12-05-6726825d.pth of pytorch-fid and convert it once by "
    "scripts/feature-weights inception FILE"};
constexpr int64_t kInceptionSide = 299, kPoolDimension = 2048, kInceptionLogits = 1008;
constexpr double kInceptionEps = 1e-3;
constexpr int64_t kInceptionImageBytes = int64_t{24} << 20;

/// Convolutions of a block, by the name of their branch.
struct Shape {
  const char* branch;
  int64_t in, out;  ///< in == 0: what the block is given
  int64_t height, width, stride = 1;
  bool padded = true;  ///< so that the size stays
};

at::Tensor average3(const at::Tensor& x) {
  return at::avg_pool2d(x, 3, 1, 1, /*ceil_mode=*/false, /*count_include_pad=*/false);
}

std::vector<Shape> block_a(int64_t pooled) {
  return {{"branch1x1", 0, 64, 1, 1},       {"branch5x5_1", 0, 48, 1, 1},
          {"branch5x5_2", 48, 64, 5, 5},    {"branch3x3dbl_1", 0, 64, 1, 1},
          {"branch3x3dbl_2", 64, 96, 3, 3}, {"branch3x3dbl_3", 96, 96, 3, 3},
          {"branch_pool", 0, pooled, 1, 1}};
}

std::vector<Shape> block_b() {
  return {{"branch3x3", 0, 384, 3, 3, 2, false},
          {"branch3x3dbl_1", 0, 64, 1, 1},
          {"branch3x3dbl_2", 64, 96, 3, 3},
          {"branch3x3dbl_3", 96, 96, 3, 3, 2, false}};
}

std::vector<Shape> block_c(int64_t inner) {
  return {{"branch1x1", 0, 192, 1, 1},
          {"branch7x7_1", 0, inner, 1, 1},
          {"branch7x7_2", inner, inner, 1, 7},
          {"branch7x7_3", inner, 192, 7, 1},
          {"branch7x7dbl_1", 0, inner, 1, 1},
          {"branch7x7dbl_2", inner, inner, 7, 1},
          {"branch7x7dbl_3", inner, inner, 1, 7},
          {"branch7x7dbl_4", inner, inner, 7, 1},
          {"branch7x7dbl_5", inner, 192, 1, 7},
          {"branch_pool", 0, 192, 1, 1}};
}

std::vector<Shape> block_d() {
  return {{"branch3x3_1", 0, 192, 1, 1},     {"branch3x3_2", 192, 320, 3, 3, 2, false},
          {"branch7x7x3_1", 0, 192, 1, 1},   {"branch7x7x3_2", 192, 192, 1, 7},
          {"branch7x7x3_3", 192, 192, 7, 1}, {"branch7x7x3_4", 192, 192, 3, 3, 2, false}};
}

std::vector<Shape> block_e() {
  return {{"branch1x1", 0, 320, 1, 1},         {"branch3x3_1", 0, 384, 1, 1},
          {"branch3x3_2a", 384, 384, 1, 3},    {"branch3x3_2b", 384, 384, 3, 1},
          {"branch3x3dbl_1", 0, 448, 1, 1},    {"branch3x3dbl_2", 448, 384, 3, 3},
          {"branch3x3dbl_3a", 384, 384, 1, 3}, {"branch3x3dbl_3b", 384, 384, 3, 1},
          {"branch_pool", 0, 192, 1, 1}};
}

/// The convolutions of one block, each followed by a ReLU.
class InceptionBlock {
 public:
  InceptionBlock(const NetworkWeights& weights, const std::string& block, int64_t in,
                 const std::vector<Shape>& shapes) {
    for (const Shape& shape : shapes) {
      const std::string name = block.empty() ? shape.branch : block + "." + shape.branch;
      FoldedConv conv =
          weights.normalised(name + ".conv", name + ".bn", kInceptionEps,
                             {shape.out, shape.in > 0 ? shape.in : in, shape.height, shape.width});
      conv.stride = shape.stride;
      if (shape.padded) conv.padding = {shape.height / 2, shape.width / 2};
      convs_.emplace(shape.branch, std::move(conv));
    }
  }
  /// Through these convolutions, one after the other.
  at::Tensor operator()(at::Tensor x, std::initializer_list<const char*> branches) const {
    for (const char* branch : branches) x = convs_.at(branch).relu(x);
    return x;
  }

 private:
  std::map<std::string, FoldedConv, std::less<>> convs_;
};

at::Tensor through_a(const InceptionBlock& block, const at::Tensor& x) {
  return at::cat({block(x, {"branch1x1"}), block(x, {"branch5x5_1", "branch5x5_2"}),
                  block(x, {"branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"}),
                  block(average3(x), {"branch_pool"})},
                 1);
}

at::Tensor through_b(const InceptionBlock& block, const at::Tensor& x) {
  return at::cat(
      {block(x, {"branch3x3"}), block(x, {"branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"}),
       at::max_pool2d(x, 3, 2)},
      1);
}

at::Tensor through_c(const InceptionBlock& block, const at::Tensor& x) {
  return at::cat({block(x, {"branch1x1"}), block(x, {"branch7x7_1", "branch7x7_2", "branch7x7_3"}),
                  block(x, {"branch7x7dbl_1", "branch7x7dbl_2", "branch7x7dbl_3", "branch7x7dbl_4",
                            "branch7x7dbl_5"}),
                  block(average3(x), {"branch_pool"})},
                 1);
}

at::Tensor through_d(const InceptionBlock& block, const at::Tensor& x) {
  return at::cat({block(x, {"branch3x3_1", "branch3x3_2"}),
                  block(x, {"branch7x7x3_1", "branch7x7x3_2", "branch7x7x3_3", "branch7x7x3_4"}),
                  at::max_pool2d(x, 3, 2)},
                 1);
}

at::Tensor through_e(const InceptionBlock& block, const at::Tensor& x, const at::Tensor& pooled) {
  const at::Tensor three = block(x, {"branch3x3_1"});
  const at::Tensor twice = block(x, {"branch3x3dbl_1", "branch3x3dbl_2"});
  return at::cat({block(x, {"branch1x1"}), block(three, {"branch3x3_2a"}),
                  block(three, {"branch3x3_2b"}), block(twice, {"branch3x3dbl_3a"}),
                  block(twice, {"branch3x3dbl_3b"}), block(pooled, {"branch_pool"})},
                 1);
}

std::vector<Shape> stem() {
  return {{"Conv2d_1a_3x3", 3, 32, 3, 3, 2, false},
          {"Conv2d_2a_3x3", 32, 32, 3, 3, 1, false},
          {"Conv2d_2b_3x3", 32, 64, 3, 3},
          {"Conv2d_3b_1x1", 64, 80, 1, 1},
          {"Conv2d_4a_3x3", 80, 192, 3, 3, 1, false}};
}

class Inception : public LayeredNetwork {
 public:
  Inception(const NetworkWeights& weights, InceptionResizing resizing, FeatureFacts facts)
      : LayeredNetwork(std::move(facts), kInceptionImageBytes),
        resizing_(resizing),
        stem_(weights, "", 3, stem()),
        mixed_{{"Mixed_5b", {weights, "Mixed_5b", 192, block_a(32)}, through_a},
               {"Mixed_5c", {weights, "Mixed_5c", 256, block_a(64)}, through_a},
               {"Mixed_5d", {weights, "Mixed_5d", 288, block_a(64)}, through_a},
               {"Mixed_6a", {weights, "Mixed_6a", 288, block_b()}, through_b},
               {"Mixed_6b", {weights, "Mixed_6b", 768, block_c(128)}, through_c},
               {"Mixed_6c", {weights, "Mixed_6c", 768, block_c(160)}, through_c},
               {"Mixed_6d", {weights, "Mixed_6d", 768, block_c(160)}, through_c},
               {"Mixed_6e", {weights, "Mixed_6e", 768, block_c(192)}, through_c},
               {"Mixed_7a", {weights, "Mixed_7a", 768, block_d()}, through_d},
               {"Mixed_7b", {weights, "Mixed_7b", 1280, block_e()}, through_7b},
               {"Mixed_7c", {weights, "Mixed_7c", 2048, block_e()}, through_7c}},
        logits_(weights.tensor("fc.weight", {kInceptionLogits, kPoolDimension})) {}

  FeatureBatch forward(const at::Tensor& images, const LayerWatch& watch) const override {
    at::Tensor x = as_floats(images, 3);
    x = resizing_ == InceptionResizing::kClean ? resized_cleanly(x, kInceptionSide)
                                               : resized_like_tensorflow1(x, kInceptionSide);
    x = (x - 128) / 128;
    const auto seen = [&](std::string_view layer) {
      if (watch) watch(layer, x);
    };
    seen("input");
    x = stem_(x, {"Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"});
    seen("Conv2d_2b_3x3");
    x = stem_(at::max_pool2d(x, 3, 2), {"Conv2d_3b_1x1", "Conv2d_4a_3x3"});
    seen("Conv2d_4a_3x3");
    x = at::max_pool2d(x, 3, 2);
    for (const Mixed& mixed : mixed_) {
      x = mixed.through(mixed.block, x);
      seen(mixed.name);
    }
    x = x.mean({2, 3});
    return {x, at::linear(x, logits_)};
  }

 private:
  struct Mixed {
    const char* name;
    InceptionBlock block;
    at::Tensor (*through)(const InceptionBlock&, const at::Tensor&);
  };
  static at::Tensor through_7b(const InceptionBlock& block, const at::Tensor& x) {
    return through_e(block, x, average3(x));
  }
  static at::Tensor through_7c(const InceptionBlock& block, const at::Tensor& x) {
    return through_e(block, x, at::max_pool2d(x, 3, 1, 1));
  }

  InceptionResizing resizing_;
  InceptionBlock stem_;
  std::vector<Mixed> mixed_;
  at::Tensor logits_;
};

std::string metadata_of(const SafetensorsFile& file, const char* key) {
  const auto found = file.metadata().find(key);
  return found == file.metadata().end() ? "" : found->second;
}

}  // namespace

NetworkWeights inception_weights(const FeatureRequest& request) {
  const fs::path path = weights_path(request, kInception);
  if (path.extension() != ".safetensors")
    throw DataError(fmt::format("'{}' is not converted; {}", path.string(), kInception.source));
  const SafetensorsFile file(path);
  if (const std::string of = metadata_of(file, "source_sha256"); of != kInception.sha256)
    throw DataError(fmt::format(
        "'{}' {}, and FID is defined by those of the file with the SHA-256 {}; {}", path.string(),
        of.empty() ? "does not say of which file its weights are" : "is made of the file " + of,
        kInception.sha256, kInception.source));
  Sha256 hash;
  for (const std::string& name : file.names()) {
    const auto bytes = file.info(name).bytes;
    hash.update(bytes.data(), bytes.size());
  }
  const std::string tensors = hex(hash.finish());
  if (tensors != metadata_of(file, "tensors_sha256"))
    throw DataError(fmt::format("the weights of '{}' are not those that were converted; {}",
                                path.string(), kInception.source));
  return NetworkWeights(file, fmt::format("{}, tensors {}", kInception.sha256, tensors));
}

namespace {

std::unique_ptr<FeatureNetwork> made_inception(const FeatureRequest& request,
                                               InceptionResizing resizing, std::string_view name) {
  require_grey_or_colour(request.shape, name);
  auto network = inception_of(inception_weights(request), resizing);
  network->made_for(request.shape);
  return network;
}

}  // namespace

std::unique_ptr<LayeredNetwork> inception_of(const NetworkWeights& weights,
                                             InceptionResizing resizing) {
  const bool clean = resizing == InceptionResizing::kClean;
  FeatureFacts facts;
  facts.network = clean ? "inception-clean" : "inception";
  facts.distance = clean ? "clean-FID" : "FID";
  facts.weights_sha256 = weights.sha256();
  facts.preprocessing = fmt::format("uint8, {} to 299, grey repeated, (x - 128) / 128",
                                    clean ? "clean bicubic" : "bilinear of TensorFlow 1");
  facts.input_size = kInceptionSide;
  facts.dimension = kPoolDimension;
  facts.num_logits = kInceptionLogits;
  return std::make_unique<Inception>(weights, resizing, std::move(facts));
}

std::unique_ptr<FeatureNetwork> make_inception(const FeatureRequest& request) {
  return made_inception(request, InceptionResizing::kTensorFlow1, "inception");
}

std::unique_ptr<FeatureNetwork> make_clean_inception(const FeatureRequest& request) {
  return made_inception(request, InceptionResizing::kClean, "inception-clean");
}

}  // namespace sfumato
