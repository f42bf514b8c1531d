#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "features/formula_weights.h"
#include "features/networks/efficientnet_lite0.h"
#include "features/networks/inception.h"
#include "features/networks/input_images.h"
#include "features/networks/lenet.h"
#include "features/networks/squeezenet.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/io/idx.h"
#include "sfumato/models/tensor_file.h"
#include "support/error_message.h"
#include "support/shared_folder.h"
#include "support/temp_folder.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

const fs::path kLeNetFolder = test::source_folder() / "models/public/lenet";
constexpr char kSqueezeNetFile[] = "data/squeezenet/squeezenet_v1.0_imagenet.safetensors";

/// Two numbers of the first image, the last of the second, and the sum of all magnitudes.
using Picked = std::array<double, 4>;

Picked picked(const at::Tensor& values) {
  const at::Tensor x = values.to(at::kDouble);
  return {x[0][0].item<double>(), x[0][1].item<double>(), x[1][x.size(1) - 1].item<double>(),
          x.abs().sum().item<double>()};
}

void expect_near(const at::Tensor& values, const Picked& wanted) {
  const double largest = values.abs().max().item<double>();
  const Picked found = picked(values);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(found[i], wanted[i], 2e-5 * largest) << i;
  EXPECT_NEAR(found[3], wanted[3], 2e-5 * wanted[3]);
}

void expect_golden(const FeatureNetwork& network, const at::Tensor& images, const Picked& features,
                   const Picked& logits) {
  const FeatureBatch found = features_of(network, images);
  EXPECT_EQ(found.features.size(1), network.facts().dimension);
  EXPECT_EQ(found.logits.size(1), network.facts().num_logits);
  expect_near(found.features, features);
  expect_near(found.logits, logits);
}

// Numbers that PyTorch's networks gave: tests/compare/feature_networks.py --golden.

TEST(FeatureNetworks, SqueezeNetIsTorchvisions) {
  expect_golden(*squeezenet_of(test::formula_weights()), test::formula_images(3),
                {1.782647, 307.7364, 104.1779, 122571.9}, {169.1753, 105.5268, 63.25896, 227225.9});
}

TEST(FeatureNetworks, EfficientNetLite0IsThatOfItsPackage) {
  expect_golden(*efficientnet_lite0_of(test::formula_weights()), test::formula_images(3),
                {1.592827, -2.02686, -2.806061, 755.833},
                {-3.903302, 2.247729, 1.068107, 4018.412});
}

TEST(FeatureNetworks, LeNetIsThatOfItsTraining) {
  expect_golden(*lenet_of(test::formula_weights()), test::formula_images(1), {0, 0, 0, 110.7214},
                {-2.784643, -1.210061, 1.042587, 107.0275});
}

TEST(FeatureNetworks, InceptionIsTorchFidelitysFromImagesToLogits) {
  expect_golden(*inception_of(test::formula_weights(), InceptionResizing::kTensorFlow1),
                test::formula_images(3), {0.9913718, 0.3255651, 0, 1435.112},
                {-0.120448, 0.1815822, -0.1059252, 1341.083});
}

TEST(FeatureNetworks, CleanInceptionIsPytorchFidsAfterCleanFidsResizing) {
  expect_golden(*inception_of(test::formula_weights(), InceptionResizing::kClean),
                test::formula_images(3), {1.238609, 0.401388, 0, 1652.701},
                {-0.158952, 0.1904091, -0.1125154, 1548.29});
}

TEST(FeatureNetworks, SqueezeNetOfImageNet) {
  SFUMATO_NEEDS_SHARED(kSqueezeNetFile);
  FeatureRequest request;
  request.shape = {3, 20, 24};
  request.weights = test::shared_folder() / kSqueezeNetFile;
  const auto network = make_feature_network("squeezenet", request);
  EXPECT_EQ(network->facts().distance, "FD-SqueezeNet");
  expect_golden(*network, test::formula_images(3), {0, 0, 18.93996, 6755.037},
                {0.2256776, 1.635406, 5.042617, 3854.1});
}

TEST(FeatureNetworks, GreyImagesAreColourOfEqualChannels) {
  const at::Tensor grey = test::formula_images(1);
  const at::Tensor colour = at::cat({grey, grey, grey}, 3);
  for (const auto& network :
       {squeezenet_of(test::formula_weights()), efficientnet_lite0_of(test::formula_weights())})
    EXPECT_TRUE((*network)(grey).features.equal((*network)(colour).features));
}

TEST(FeatureNetworks, LookAtTheirImageAlone) {
  const at::Tensor images = test::formula_images(3);
  const auto network = efficientnet_lite0_of(test::formula_weights());
  const at::Tensor both = (*network)(images).features;
  for (int64_t i = 0; i < 2; ++i) {
    const at::Tensor alone = (*network)(images.narrow(0, i, 1)).features;
    EXPECT_LT((alone - both.narrow(0, i, 1)).abs().max().item<double>(), 1e-4) << "of up to 8";
  }
}

// Resizing ----------------------------------------------------------------------------------------

/// Pillow's resampling of one axis, from its definition: a kernel that widens where images shrink.
std::vector<std::vector<double>> bicubic_rows(int64_t size, int64_t side) {
  const double scale = static_cast<double>(size) / static_cast<double>(side);
  const double wide = std::max(scale, 1.0);
  const auto kernel = [](double x) {
    x = std::abs(x);
    if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
    return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0.0;
  };
  std::vector<std::vector<double>> rows;
  for (int64_t i = 0; i < side; ++i) {
    std::vector<double> row;
    double sum = 0;
    for (int64_t j = 0; j < size; ++j) {
      row.push_back(
          kernel((static_cast<double>(j) + 0.5 - (static_cast<double>(i) + 0.5) * scale) / wide));
      sum += row.back();
    }
    for (double& weight : row) weight /= sum;
    rows.push_back(row);
  }
  return rows;
}

std::vector<std::vector<double>> tensorflow1_rows(int64_t size, int64_t side) {
  std::vector<std::vector<double>> rows;
  for (int64_t i = 0; i < side; ++i) {
    std::vector<double> row(static_cast<std::size_t>(size), 0.0);
    const double place = static_cast<double>(i * size) / static_cast<double>(side);
    const auto low = static_cast<std::size_t>(place);
    const double share = place - static_cast<double>(low);
    row[low] += 1 - share;
    row[std::min(low + 1, row.size() - 1)] += share;
    rows.push_back(row);
  }
  return rows;
}

at::Tensor as_matrix(const std::vector<std::vector<double>>& rows) {
  at::Tensor matrix = at::empty({std::ssize(rows), std::ssize(rows[0])}, at::kDouble);
  auto* out = matrix.mutable_data_ptr<double>();
  for (const auto& row : rows) out = std::copy(row.begin(), row.end(), out);
  return matrix;
}

TEST(InputImages, AreResizedByDefinition) {
  const at::Tensor x = as_floats(test::formula_images(3), 3);  // 20 x 24
  for (const int64_t side : {7, 20, 24, 64, 299}) {
    const auto wanted = [&](const auto& rows) {
      return as_matrix(rows(20, side))
          .matmul(x.to(at::kDouble))
          .matmul(as_matrix(rows(24, side)).t());
    };
    EXPECT_LT(
        (resized_like_tensorflow1(x, side) - wanted(tensorflow1_rows)).abs().max().item<double>(),
        1e-3)
        << side;
    EXPECT_LT(
        (resized_cleanly(x, side) - wanted(bicubic_rows).clamp(0, 255)).abs().max().item<double>(),
        1e-3)
        << side;
  }
}

// Errors ------------------------------------------------------------------------------------------

std::string refusal(const std::string& network, const fs::path& weights, int64_t channels = 3,
                    bool of_use = false) {
  FeatureRequest request;
  request.shape = {channels, 20, 24};
  request.weights = weights;
  const auto action = [&] { make_feature_network(network, request); };
  return of_use ? test::error_message<UsageError>(action) : test::error_message<DataError>(action);
}

TEST(FeatureNetworks, SayWhereTheirWeightsAre) {
  for (const std::string network :
       {"squeezenet", "efficientnet-lite0", "inception", "inception-clean"})
    EXPECT_THAT(refusal(network, {}, 3, true),
                AllOf(HasSubstr("--weights"), HasSubstr("scripts/")));
  // That of the letters comes with the program.
  FeatureRequest request;
  request.shape = {1, 28, 28};
  EXPECT_EQ(make_feature_network("lenet", request)->facts().weights_sha256.substr(0, 8),
            "d0fcc0b1");
  const test::TempFolder folder;
  EXPECT_THAT(refusal("efficientnet-lite0", folder.path()),
              AllOf(HasSubstr("efficientnet-lite0.safetensors"), HasSubstr("does not exist")));
}

TEST(FeatureNetworks, TakeNoOtherWeights) {
  const fs::path other = kLeNetFolder / "lenet.safetensors";
  for (const std::string network : {"squeezenet", "efficientnet-lite0"})
    EXPECT_THAT(refusal(network, other), AllOf(HasSubstr("SHA-256 d0fcc0b1"), HasSubstr(network)));
  const test::TempFolder folder;
  std::string bytes = read_file(other);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  write_file_atomic(folder / "lenet.safetensors", bytes);
  EXPECT_THAT(refusal("lenet", folder.path(), 1), HasSubstr("and the weights of 'lenet'"));
}

TEST(FeatureNetworks, TakeNoOtherChannels) {
  EXPECT_THAT(refusal("lenet", kLeNetFolder, 3, true), HasSubstr("3 channels"));
  for (const std::string network :
       {"squeezenet", "efficientnet-lite0", "inception", "inception-clean"})
    EXPECT_THAT(refusal(network, kLeNetFolder, 4, true), HasSubstr("these have 4"));
}

class InceptionFile : public ::testing::Test {
 protected:
  static constexpr char kSource[] =
      "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2";
  /// Of the four bytes 0, which one tensor has.
  static constexpr char kTensors[] =
      "df3f619804a92fdb4057192dc43dd748ea778adc52bc498ce80524c014b81119";

  std::string refusal_of(std::map<std::string, std::string> metadata) const {
    const float zero = 0;
    TensorInfo tensor;
    tensor.name = "fc.bias";
    tensor.shape = {1};
    tensor.bytes = std::as_bytes(std::span(&zero, 1));
    write_safetensors(folder_ / "x.safetensors", std::span(&tensor, 1), std::move(metadata));
    return refusal("inception", folder_ / "x.safetensors");
  }
  test::TempFolder folder_;
};

TEST_F(InceptionFile, IsConvertedFromTheOneThatDefinesFid) {
  EXPECT_THAT(refusal_of({}), HasSubstr("does not say of which file"));
  EXPECT_THAT(refusal_of({{"source_sha256", std::string(64, 'a')}, {"tensors_sha256", kTensors}}),
              AllOf(HasSubstr("is made of the file aaaa"), HasSubstr(kSource)));
  EXPECT_THAT(refusal_of({{"source_sha256", kSource}, {"tensors_sha256", std::string(64, 'b')}}),
              HasSubstr("not those that were converted"));
  EXPECT_THAT(
      refusal_of({{"source_sha256", kSource}, {"tensors_sha256", kTensors}}),
      AllOf(HasSubstr("holds no tensor 'Conv2d_1a_3x3.conv.weight'"), HasSubstr("x.safetensors")));
  // Whoever wrote the notes chose them: what the file holds is said beside them.
  EXPECT_EQ(inception_weights({.shape = {}, .weights = folder_ / "x.safetensors"}).sha256(),
            fmt::format("{}, tensors {}", kSource, kTensors));
  write_file_atomic(folder_ / "pt_inception.pth", "pickle");
  EXPECT_THAT(refusal("inception", folder_ / "pt_inception.pth"),
              AllOf(HasSubstr("is not converted"), HasSubstr("scripts/feature-weights inception")));
}

TEST(NetworkWeights, MissingDamagedAndOtherTensorsAreNamed) {
  const auto message = [](const NetworkWeights::Source& source) {
    return test::error_message<DataError>([&] { lenet_of({source, "some file", ""}); });
  };
  const auto with = [](const std::string& changed, const at::Tensor& value) {
    return [=](const std::string& name, const std::vector<int64_t>& shape) {
      return name == changed ? value : test::formula_tensor(name, shape);
    };
  };
  EXPECT_THAT(message(with("fc1.bias", {})),
              AllOf(HasSubstr("some file"), HasSubstr("no tensor 'fc1.bias'")));
  EXPECT_THAT(message(with("conv2.weight", at::full({32, 32, 3, 3}, 1.0F))),
              AllOf(HasSubstr("32x32x3x3"), HasSubstr("32x32x5x5")));
  EXPECT_THAT(message(with("fc2.bias", at::full({52}, std::nan("")))), HasSubstr("NaN"));
}

// The LeNet that comes with the sources -----------------------------------------------------------

TEST(FeatureNetworks, TheLeNetOfTheSourcesReadsLetters) {
  FeatureRequest request;
  request.shape = {1, 28, 28};
  request.weights = kLeNetFolder;
  const auto network = make_feature_network("lenet", request);
  EXPECT_EQ(network->facts().distance, "FD-LeNet");
  const int64_t small = network->image_bytes();
  request.shape = {1, 1000, 1000};
  EXPECT_GE(make_feature_network("lenet", request)->image_bytes(), small + 8'000'000);
  SFUMATO_NEEDS_SHARED("data/glyphs/fontletters-images-idx3-ubyte.gz");
  const fs::path glyphs = test::shared_folder() / "data/glyphs";
  IdxReader images(glyphs / "fontletters-images-idx3-ubyte.gz");
  IdxReader labels(glyphs / "fontletters-labels-idx1-ubyte.gz");
  const int64_t seen = images.count() * 9 / 10, apart = images.count() - seen;
  at::Tensor letters = at::empty({apart, 28, 28, 1}, at::kByte);
  at::Tensor wanted = at::empty({apart}, at::kLong);
  std::vector<std::uint8_t> image(28 * 28);
  int64_t label = 0;
  for (int64_t i = 0; images.next(image) && labels.next_integer(label); ++i) {
    if (i < seen) continue;
    std::copy(image.begin(), image.end(),
              letters.mutable_data_ptr<std::uint8_t>() + (i - seen) * 28 * 28);
    wanted.mutable_data_ptr<int64_t>()[i - seen] = label;
  }
  const at::Tensor found = features_of(*network, letters).logits.argmax(1);
  EXPECT_NEAR((found == wanted).to(at::kDouble).mean().item<double>(), 0.8747, 0.001);
  EXPECT_NEAR((found % 26 == wanted % 26).to(at::kDouble).mean().item<double>(), 0.9789, 0.001);
}

}  // namespace
}  // namespace sfumato
