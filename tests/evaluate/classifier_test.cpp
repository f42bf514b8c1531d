// The networks that are trained on a corpus: their layers against PyTorch's (the numbers are those
// of tests/python/classifier_networks.py), and that each learns.
#include "sfumato/evaluate/classifier.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "evaluate/classifier_network.h"
#include "evaluate/tensor_average.h"
#include "features/formula_weights.h"
#include "sfumato/core/error.h"
#include "support/error_message.h"
#include "support/every_name.h"

namespace sfumato {
namespace {

constexpr int64_t kClasses = 4;

struct Golden {
  ClassifierKind kind;
  /// Parameters, tensors, a checksum of names and shapes; logits of an image, then those in
  /// training without dropout, then the mean of the last running variance after that.
  std::vector<double> numbers;
};

const std::vector<Golden>& golden() {
  // clang-format off
  static const std::vector<Golden> kNumbers = {
      {ClassifierKind::kResNet110, {1730324, 335, 4032051, 3.099485e+08, 1.340581e+08, -1.60307e+07,
       -8.641579e+07, 4.607548, 7.385128, 0.9915598, -1.175669, 0.9644727}},
      {ClassifierKind::kWrn404, {8947668, 116, 1831885, 212.7708, 242.4574, 65.72087, -166.8113,
       0.6454881, 1.674319, 0.0527144, -1.100621, 1.306507}},
      {ClassifierKind::kResNext29, {34420548, 95, 2902917, 4.248737, 27.93843, -9.751643, 31.97803,
       2.33555, 0.4603509, 1.743074, 1.637281, 0.9702026}},
  };
  // clang-format on
  return kNumbers;
}

std::unique_ptr<ClassifierNetwork> network_of(ClassifierKind kind, int64_t height = 12,
                                              int64_t width = 16) {
  return classifier_row(kind).make({3, height, width, kClasses}, at::detail::createCPUGenerator(1));
}

void put_formula(const ClassifierNetwork& network) {
  const at::NoGradGuard no_grad;
  for (const auto& tensors : {network.parameters(), network.buffers()})
    for (const auto& [name, tensor] : tensors)
      at::Tensor(tensor).copy_(test::formula_tensor(name, tensor.sizes().vec()));
}

at::Tensor formula_inputs() {
  at::Tensor x = at::empty({2, 3, 12, 16}, at::kFloat);
  auto* out = x.mutable_data_ptr<float>();
  for (const double u : test::hashed_numbers("images", x.numel()))
    *out++ = static_cast<float>(u) * 2 - 1;
  return x;
}

double checksum(const ClassifierNetwork& network) {
  double sum = 0;
  for (const auto& [name, tensor] : network.parameters()) {
    for (const char letter : name) sum += 7 * static_cast<unsigned char>(letter);
    for (int64_t i = 0; i < tensor.dim(); ++i) sum += static_cast<double>((i + 1) * tensor.size(i));
  }
  return sum;
}

void expect_logits(const at::Tensor& logits, const double* expected, const std::string& what) {
  double largest = 0;
  for (int64_t i = 0; i < kClasses; ++i) largest = std::max(largest, std::abs(expected[i]));
  for (int64_t i = 0; i < kClasses; ++i)
    EXPECT_NEAR(logits[0][i].item<double>(), expected[i], 1e-4 * largest) << what << " " << i;
}

TEST(Classifiers, HaveNamesAndRows) {
  test::expect_every_enumerator_named<ClassifierKind>();
  for (const auto& row : EnumNames<ClassifierKind>::kTable)
    EXPECT_EQ(classifier_row(row.value).kind, row.value);
}

TEST(Classifiers, LayersAreThoseOfPyTorch) {
  const at::NoGradGuard no_grad;
  for (const Golden& row : golden()) {
    const std::string name = to_string(row.kind);
    const auto network = network_of(row.kind);
    int64_t count = 0;
    for (const auto& parameter : network->parameters()) count += parameter.second.numel();
    EXPECT_EQ(static_cast<double>(count), row.numbers[0]) << name;
    EXPECT_EQ(static_cast<double>(network->parameters().size()), row.numbers[1]) << name;
    EXPECT_EQ(checksum(*network), row.numbers[2]) << name;
    put_formula(*network);
    const at::Tensor x = formula_inputs();
    expect_logits(network->logits(x), &row.numbers[3], name);
    expect_logits(network->training_logits(x, std::nullopt), &row.numbers[7],
                  name + " in training");
    EXPECT_NEAR(network->buffers().back().second.mean().item<double>(), row.numbers[11], 1e-4);
  }
}

TEST(Classifiers, DropoutIsInTrainingAlone) {
  const at::NoGradGuard no_grad;
  const auto network = network_of(ClassifierKind::kWrn404);
  const at::Tensor x = formula_inputs();
  EXPECT_TRUE(network->logits(x).equal(network->logits(x)));
  const auto drawn = [&](uint64_t seed) {
    return network->training_logits(x, at::detail::createCPUGenerator(seed));
  };
  EXPECT_TRUE(drawn(1).equal(drawn(1)));
  EXPECT_FALSE(drawn(1).equal(drawn(2)));
}

/// Half of each image is light: which half is the class.
LabelledImages halves(int64_t count) {
  LabelledImages images;
  images.class_names = {"0", "1"};
  images.labels = at::arange(count, at::kLong) % 2;
  images.images = at::full({count, 8, 8, 1}, 40, at::kByte);
  for (int64_t i = 0; i < count; ++i)
    images.images[i].narrow(0, 4 * (i % 2), 4).fill_(static_cast<int64_t>(150 + i % 60));
  return images;
}

TEST(Classifiers, Learn) {
  const LabelledImages train = halves(48), test = halves(20);
  for (const auto& [kind, epochs] :
       {std::pair(ClassifierKind::kSmall, 6), std::pair(ClassifierKind::kWrn404, 3)}) {
    ClassifierOptions options;
    options.kind = kind;
    options.epochs = epochs;
    options.batch = 4;
    options.learning_rate = 1e-3;
    const Classifier classifier(train, options);
    EXPECT_EQ(classifier.trained_on(), 40);
    EXPECT_GE(classifier.accuracy(test).value, 0.95) << to_string(kind);
  }
}

TEST(Classifiers, TheLossReachesEveryParameter) {
  const LabelledImages images = halves(4);
  const at::Tensor x = images.images.permute({0, 3, 1, 2}).to(at::kFloat) / 127.5 - 1;
  for (const auto& row : EnumNames<ClassifierKind>::kTable) {
    const at::Generator draw = at::detail::createCPUGenerator(1);
    const auto network = classifier_row(row.value).make({1, 8, 8, 2}, draw);
    at::cross_entropy_loss(network->training_logits(x, draw), images.labels).backward();
    for (const auto& [name, parameter] : network->parameters()) {
      ASSERT_TRUE(parameter.grad().defined()) << row.name << " " << name;
      EXPECT_GT(parameter.grad().abs().max().item<double>(), 0) << row.name << " " << name;
    }
  }
}

TEST(Classifiers, StatisticsAreFiniteForTheSmallestImagesAndALastBatchOfOne) {
  for (const auto& row : EnumNames<ClassifierKind>::kTable) {
    const int64_t side = classifier_row(row.value).recipe().least_side;
    const auto network = network_of(row.value, side, side);
    network->training_logits(at::full({1, 3, side, side}, 0.5), std::nullopt);
    for (const auto& [name, buffer] : network->buffers())
      EXPECT_TRUE(buffer.isfinite().all().item<bool>()) << row.name << " " << name;
  }
}

void put_both(const at::Tensor& a, const at::Tensor& b, double value) {
  const at::NoGradGuard no_grad;
  for (at::Tensor one : {a, b}) one.fill_(value);
}

TEST(Classifiers, WeightsAndStatisticsAreAveragedAlike) {
  const at::Tensor weight = at::full({2}, 1.0).requires_grad_(true), statistic = at::full({3}, 1.0);
  TensorAverage average({weight, statistic}, 0.25);
  double value = 1, expected = 1;
  for (int n = 1; n <= 4; ++n) {
    value += 2;
    put_both(weight, statistic, value);
    average.update();
    const double decay = std::min(0.25, (1.0 + n) / (10.0 + n));
    expected = decay * expected + (1 - decay) * value;
  }
  const auto last = average.take();
  for (const at::Tensor& one : {weight, statistic})
    EXPECT_NEAR(one.min().item<double>(), expected, 1e-6);
  average.give_back(last);
  for (const at::Tensor& one : {weight, statistic}) EXPECT_EQ(one.max().item<double>(), value);
}

TEST(Classifiers, DescribeHowTheyAreTrained) {
  ClassifierOptions options;
  EXPECT_THAT(classifier_description(options),
              testing::StartsWith("convolutions 32-64 and 128 units, dropout 0.25/0.5, Adam 0.001, "
                                  "10 epochs, batch 64, "));
  options.kind = ClassifierKind::kWrn404;
  EXPECT_THAT(classifier_description(options),
              testing::StartsWith("WRN-40-4, dropout 0.3, Adam 0.01 times 0.2 every 20 epochs, "
                                  "weights and statistics averaged by 0.9999, 50 epochs, batch "
                                  "256, "));
}

}  // namespace
}  // namespace sfumato
