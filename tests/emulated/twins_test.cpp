// Every kernel against its twin on the CPU, on tensors as LibTorch lays them out; on a GPU with the
// shapes of real networks too. tests/emulation has the kernels' own tests, shape by shape.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <array>
#include <limits>
#include <optional>

#include "emulated/on_kernels.h"
#include "kernels/kernel_set.h"
#include "sfumato/device/gpu.h"
#include "sfumato/device/kernel_bridge.h"

namespace sfumato {
namespace {

using namespace test;

/// Device tensors and the CPU's, the same bits in both.
class Twins : public OnKernels {
 protected:
  void SetUp() override {
    OnKernels::SetUp();
    if (!IsSkipped()) here_.emplace();
  }
  at::Tensor placed(const at::Tensor& t) const { return t.to(here_->device()); }
  const KernelSet& kernels() const { return *kernels_for(placed(at::zeros({1}))); }
  void* stream() const { return on_gpu() ? find_gpu_backend()->current_stream() : nullptr; }

  std::optional<KernelsServe> here_;
};

Element element_of(const at::Tensor& t) {
  return t.scalar_type() == at::kFloat ? Element::kFloat32 : Element::kBfloat16;
}
const void* data(const at::Tensor& t) { return t.const_data_ptr(); }
template <class T>
T* values(const at::Tensor& t) {
  return t.mutable_data_ptr<T>();
}
at::Tensor floats(at::IntArrayRef shape) { return at::empty(shape, at::kFloat); }
at::Tensor doubles(at::IntArrayRef shape) { return at::empty(shape, at::kDouble); }

/// |got - wanted| at most `tolerance` of the largest wanted magnitude.
void expect_near(const at::Tensor& got, const at::Tensor& wanted, double tolerance,
                 const char* what) {
  ASSERT_EQ(got.numel(), wanted.numel()) << what;
  if (wanted.numel() == 0) return;
  const at::Tensor w = host(wanted).view({-1}), g = host(got).view({-1});
  const double largest = w.abs().max().item<double>();
  EXPECT_LE(g.sub(w).abs().max().item<double>(), tolerance * largest) << what;
}
void expect_equal(const at::Tensor& got, const at::Tensor& wanted, const char* what) {
  EXPECT_TRUE(host(got).view({-1}).equal(host(wanted).view({-1}))) << what;
}

/// Relative error of what our tensor cores give, by type of the operands.
double rounding(at::ScalarType type) { return type == at::kFloat ? 1e-3 : 1e-5; }

std::vector<ConvShape> conv_shapes() {
  const auto made = [](int64_t b, int64_t k, int64_t side, int64_t c, int64_t p, int64_t kernel,
                       int64_t stride, int64_t padding, int64_t dilation) {
    ConvShape s;
    s.examples = b, s.draws = k, s.height = side, s.width = side + 1, s.channels = c;
    s.out_channels = p;
    s.kernel = {kernel, kernel}, s.stride = {stride, stride}, s.padding = {padding, padding};
    s.dilation = {dilation, dilation};
    const auto out = [&](int64_t in) {
      return (in + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
    };
    s.out_height = out(s.height), s.out_width = out(s.width);
    return s;
  };
  std::vector<ConvShape> all = {made(2, 1, 5, 3, 4, 3, 1, 1, 1), made(1, 2, 6, 8, 16, 1, 1, 0, 1),
                                made(2, 2, 7, 5, 3, 3, 2, 1, 2)};
  if (!on_gpu()) return all;
  for (const auto& [b, k, side, c, p] : {std::array<int64_t, 5>{2, 2, 32, 128, 128},
                                         {2, 2, 16, 256, 256},
                                         {3, 4, 8, 512, 512},
                                         {1, 1, 64, 128, 128},
                                         {4, 8, 4, 512, 512},
                                         {200, 1, 4, 32, 32},
                                         {3, 1, 32, 3, 128},
                                         {3, 1, 32, 128, 3},
                                         {2, 5, 17, 96, 100}})
    all.push_back(made(b, k, side, c, p, 3, 1, 1, 1));
  all.push_back(made(2, 2, 32, 256, 128, 1, 1, 0, 1));
  all.push_back(made(2, 2, 32, 128, 128, 3, 2, 1, 1));
  ConvShape square = made(2, 4, 32, 128, 128, 3, 2, 1, 1);  // what tensor copies walk over
  square.width = square.height;
  square.out_width = square.out_height;
  all.push_back(square);
  return all;
}

TEST_F(Twins, ConvolutionGradientsAndNorms) {
  for (const ConvShape& s : conv_shapes()) {
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      const at::Tensor x =
          at::randn({s.examples * s.draws, s.height, s.width, s.channels}).to(type);
      const at::Tensor dy =
          at::randn({s.examples * s.draws, s.out_height, s.out_width, s.out_channels}).to(type);
      const at::Tensor grad = floats({s.examples, s.weights()});
      const at::Tensor bias = floats({s.examples, s.out_channels});
      const at::Tensor norm = doubles({s.examples}), bias_norm = doubles({s.examples});
      conv_weight_grad_cpu(data(x), data(dy), element_of(x), s, values<float>(grad),
                           Element::kFloat32, values<float>(bias), values<double>(norm),
                           values<double>(bias_norm));
      const auto last = [&](const at::Tensor& t) { return placed(t).permute({0, 3, 1, 2}); };
      const bridge::LayerGradients got = bridge::conv_weight_gradients(
          last(x), last(dy), s, {.keep = true, .bias = true, .float32 = true});
      expect_near(got.weights, grad, rounding(type), "weights");
      expect_near(got.bias, bias, 1e-5, "bias");
      expect_near(got.squared_norm, norm, 2 * rounding(type), "norm");
      expect_near(got.bias_squared_norm, bias_norm, 1e-5, "norm of the bias");
      const bridge::LayerGradients again = bridge::conv_weight_gradients(
          last(x), last(dy), s, {.keep = true, .bias = true, .float32 = true});
      expect_equal(again.weights, got.weights, "the same bits twice");
      const bridge::LayerGradients dropped =
          bridge::conv_weight_gradients(last(x), last(dy), s, {.keep = false});
      expect_near(dropped.squared_norm, got.squared_norm, 1e-6, "norm alone");
      if (s.tokens() > 1100 || s.tokens() * s.tokens() * s.channels * s.examples > 1 << 28)
        continue;  // the twin takes long
      const at::Tensor gram = doubles({s.examples});
      gram_norm_conv_cpu(data(x), data(dy), element_of(x), s, values<double>(gram));
      const at::Tensor got_gram = bridge::conv_gram_norms(last(x), last(dy), s);
      expect_near(got_gram, gram, 1e-3, "norm by Gram matrices");
    }
  }
}

TEST_F(Twins, LinearGradientsAndNorms) {
  std::vector<LinearShape> shapes = {{2, 1, 5, 7}, {3, 6, 8, 4}};
  if (on_gpu())
    shapes.insert(shapes.end(), {{16, 4, 512, 2048},
                                 {2, 1024, 256, 512},
                                 {128, 1, 512, 512},
                                 {3, 208, 184, 200}});  // tails of every kind
  for (const LinearShape& s : shapes) {
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      const at::Tensor x = at::randn({s.examples, s.tokens, s.in_features}).to(type);
      const at::Tensor dy = at::randn({s.examples, s.tokens, s.out_features}).to(type);
      const at::Tensor grad = floats({s.examples, s.in_features * s.out_features});
      const at::Tensor bias = floats({s.examples, s.out_features});
      const at::Tensor norm = doubles({s.examples}), bias_norm = doubles({s.examples});
      linear_weight_grad_cpu(data(x), data(dy), element_of(x), s, values<float>(grad),
                             Element::kFloat32, values<float>(bias), values<double>(norm),
                             values<double>(bias_norm));
      const bridge::LayerGradients got = bridge::linear_weight_gradients(
          placed(x), placed(dy), {.keep = true, .bias = true, .float32 = true});
      expect_near(got.weights, grad, rounding(type), "weights");
      expect_near(got.bias, bias, 1e-5, "bias");
      expect_near(got.squared_norm, norm, 2 * rounding(type), "norm");
      const at::Tensor gram = doubles({s.examples});
      gram_norm_linear_cpu(data(x), data(dy), element_of(x), s, values<double>(gram));
      expect_near(bridge::linear_gram_norms(placed(x), placed(dy)), gram, 1e-3, "Gram");
    }
  }
}

TEST_F(Twins, GroupNormForwardAndBackward) {
  struct Case {
    int64_t examples, draws, channels, groups, height, width;
  };
  std::vector<Case> cases = {{2, 1, 6, 2, 3, 5}, {2, 2, 16, 4, 4, 4}};
  if (on_gpu())
    cases.insert(cases.end(), {{8, 4, 128, 32, 32, 32},
                               {4, 4, 512, 32, 8, 8},
                               {2, 1, 256, 32, 64, 64},
                               {2, 3, 100, 5, 17, 9}});
  for (const Case& c : cases) {
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      for (const auto format : {at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast}) {
        const int64_t n = c.examples * c.draws;
        const std::array<int64_t, 4> shape{n, c.channels, c.height, c.width};
        const at::Tensor x = at::randn(shape).mul_(2).add_(1).to(type).contiguous(format);
        const at::Tensor dy = at::randn(shape).to(type).contiguous(format);
        const at::Tensor gamma = at::randn({c.channels}), beta = at::randn({c.channels});
        GroupNormShape s{.samples = n,
                         .draws = c.draws,
                         .channels = c.channels,
                         .groups = c.groups,
                         .positions = c.height * c.width};
        s.layout =
            format == at::MemoryFormat::Contiguous ? Layout::kChannelsFirst : Layout::kChannelsLast;
        s.activation = FusedActivation::kSilu;
        s.element = element_of(x);
        const at::Tensor y = at::empty_like(x), dx = at::empty_like(x);
        const at::Tensor mean = floats({n, c.groups}), rstd = floats({n, c.groups});
        const at::Tensor dgamma = floats({c.examples, c.channels});
        const at::Tensor dbeta = floats({c.examples, c.channels});
        group_norm_forward_cpu(data(x), values<float>(gamma), values<float>(beta), 1e-5, s,
                               y.mutable_data_ptr(), values<float>(mean), values<float>(rstd));
        group_norm_backward_cpu(data(x), data(dy), values<float>(mean), values<float>(rstd),
                                values<float>(gamma), values<float>(beta), s, dx.mutable_data_ptr(),
                                values<float>(dgamma), values<float>(dbeta));
        const bridge::GroupNormOutput out = bridge::group_norm(
            placed(x), placed(gamma), placed(beta), c.groups, 1e-5, FusedActivation::kSilu);
        const bridge::GroupNormGradients got =
            bridge::group_norm_backward(placed(x), placed(dy), out, placed(gamma), placed(beta),
                                        c.examples, c.groups, FusedActivation::kSilu, true, true);
        const double last_place = type == at::kFloat ? 1e-5 : 8e-3;
        expect_near(out.mean, mean, 1e-5, "mean");
        expect_near(out.rstd, rstd, 1e-5, "rstd");
        expect_near(out.y, y, last_place, "y");
        expect_near(got.dx, dx, last_place, "dx");
        expect_near(got.gamma, dgamma, 1e-4, "dgamma");
        expect_near(got.beta, dbeta, 1e-4, "dbeta");
      }
    }
  }
}

TEST_F(Twins, LayerNormBackward) {
  for (const int64_t channels :
       on_gpu() ? std::vector<int64_t>{5, 512, 1280} : std::vector<int64_t>{5, 24}) {
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      const int64_t examples = 3, tokens = on_gpu() ? 300 : 7;
      const at::Tensor x = at::randn({examples, tokens, channels}).to(type);
      const at::Tensor dy = at::randn({examples, tokens, channels}).to(type);
      const at::Tensor gamma = at::randn({channels});
      const at::Tensor mean = at::randn({examples, tokens}).mul_(0.1);
      const at::Tensor rstd = at::rand({examples, tokens}).add_(0.5);
      const at::Tensor dx = at::empty_like(x);
      const at::Tensor dgamma = floats({examples, channels}), dbeta = floats({examples, channels});
      layer_norm_backward_cpu(data(x), data(dy), values<float>(mean), values<float>(rstd),
                              values<float>(gamma), element_of(x), examples, tokens, channels,
                              dx.mutable_data_ptr(), values<float>(dgamma), values<float>(dbeta));
      const bridge::GroupNormGradients got = bridge::layer_norm_backward(
          placed(x), placed(dy), placed(mean), placed(rstd), placed(gamma), examples, true, true);
      expect_near(got.dx, dx, type == at::kFloat ? 1e-5 : 8e-3, "dx");
      expect_near(got.gamma, dgamma, 1e-4, "dgamma");
      expect_near(got.beta, dbeta, 1e-4, "dbeta");
    }
  }
}

TEST_F(Twins, EmbeddingsBiasesAndRows) {
  const int64_t examples = 4, tokens = on_gpu() ? 50 : 5, width = on_gpu() ? 513 : 9, rows = 6;
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor dy = at::randn({examples, tokens, width}).to(type);
    const at::Tensor indices = at::randint(rows, {examples, tokens}, at::kLong);
    const at::Tensor factors = at::tensor({0.5f, 0.0f, 1.0f, 0.25f});
    const at::Tensor norm = doubles({examples}), table = at::randn({rows, width});
    const at::Tensor got_table = placed(table.clone());
    embedding_norm_cpu(values<int64_t>(indices), data(dy), element_of(dy), examples, tokens, width,
                       values<double>(norm));
    expect_near(bridge::embedding_norms(placed(indices), placed(dy)), norm, 1e-9, "table's norm");
    embedding_accumulate_cpu(values<int64_t>(indices), data(dy), element_of(dy), examples, tokens,
                             width, rows, values<float>(factors), values<float>(table));
    bridge::embedding_accumulate(placed(indices), placed(dy), placed(factors), got_table);
    expect_near(got_table, table, 1e-6, "table's sum");

    const at::Tensor bias = floats({examples, width}), bias_norm = doubles({examples});
    bias_norm_cpu(data(dy), element_of(dy), examples, tokens, width, values<float>(bias),
                  values<double>(bias_norm));
    const bridge::LayerGradients got = bridge::bias_gradients(placed(dy));
    expect_near(got.bias, bias, 1e-6, "bias");
    expect_near(got.bias_squared_norm, bias_norm, 1e-6, "norm of the bias");

    row_squared_norms_cpu(data(dy), element_of(dy), examples, tokens * width, values<double>(norm));
    expect_near(bridge::row_norms(placed(dy)), norm, 1e-9, "rows");

    for (const bool only_zero : {false, true}) {
      const at::Tensor scaled = at::empty_like(dy);
      scale_examples_cpu(data(dy), element_of(dy), values<float>(factors), only_zero, examples,
                         tokens * width, scaled.mutable_data_ptr());
      expect_equal(only_zero ? bridge::without_zero_factors(placed(dy), placed(factors))
                             : bridge::scaled_examples(placed(dy), placed(factors)),
                   scaled, "scaled");
    }
  }
}

TEST_F(Twins, ClipFactorsToTheBit) {
  const int64_t layers = 5, examples = 40;
  const at::Tensor squared = at::rand({layers, examples}, at::kDouble).mul_(2);
  squared[2][3] = std::numeric_limits<double>::quiet_NaN();
  squared[0][7] = std::numeric_limits<double>::infinity();
  squared[1][9] = 1e-320;
  const at::Tensor mask = at::rand({examples}).lt(0.8).to(at::kFloat);
  for (const ClipRule rule : {ClipRule::kFlat, ClipRule::kPerLayer, ClipRule::kAutomatic}) {
    const ClipFactorOptions options{rule, 1.3, 0.01};
    const int64_t rows = rule == ClipRule::kPerLayer ? layers : 1;
    const at::Tensor factors = floats({rows, examples}), total = doubles({examples});
    const at::Tensor flags = at::empty({examples}, at::kByte);
    clip_factors_cpu(values<double>(squared), layers, examples, values<float>(mask), options,
                     values<float>(factors), values<double>(total), values<uint8_t>(flags));
    const bridge::ClipResult got = bridge::clip_factors(placed(squared), placed(mask), options);
    expect_equal(got.factors, factors, "factors");
    expect_equal(got.flags, flags, "flags");
    EXPECT_TRUE(host(got.total_norm).nan_to_num().equal(host(total).nan_to_num()));
  }
}

TEST_F(Twins, ClippedSumsOfManyTensors) {
  const int64_t examples = 37;
  std::vector<int64_t> counts = {1, 7, 300};
  if (on_gpu()) counts.insert(counts.end(), {512 * 512 * 9, 1000003});
  const at::Tensor factors = at::rand({2, examples});
  factors[0][4] = 0.0f;
  factors[1][4] = 0.0f;
  std::vector<bridge::KeptEntry> entries;
  std::vector<KeptGradient> table;
  Tensors keep, wanted;
  for (std::size_t j = 0; j < counts.size(); ++j) {
    at::Tensor kept = at::randn({examples, counts[j]});
    kept[4].fill_(std::numeric_limits<float>::quiet_NaN());
    if (j % 2 == 1) kept = kept.to(at::kBFloat16);
    const at::Tensor sum = at::randn({counts[j]});
    const auto row = static_cast<int64_t>(j % 2);
    entries.push_back({placed(kept), placed(sum.clone()), row});
    KeptGradient line = {};
    line.gradients = data(kept);
    line.sum = values<float>(sum);
    line.count = counts[j];
    line.factor_row = row;
    line.element = element_of(kept);
    table.push_back(line);
    keep.push_back(kept);
    wanted.push_back(sum);
  }
  clip_accumulate_cpu(table.data(), std::ssize(table), values<float>(factors), examples, false);
  bridge::clip_accumulate(entries, placed(factors));
  for (std::size_t j = 0; j < counts.size(); ++j)
    expect_near(entries[j].sum, wanted[j], 1e-6, "sum");
}

TEST_F(Twins, NoiseToTheBit) {
  ChaChaKey key;
  for (uint32_t w = 0; w < 8; ++w) key.words[w] = 0x9e3779b9u * (w + 1);
  const ChaChaNonce nonce{3, 141, 59};
  const int64_t end = on_gpu() ? 10'000'019 : 2017;
  for (const int64_t begin : {int64_t{0}, int64_t{5}, int64_t{333}}) {
    for (const bool add : {false, true}) {
      const at::Tensor wanted = at::randn({end - begin}), got = placed(wanted.clone());
      if (add)
        chacha_gaussian_add_cpu(values<float>(wanted), begin, end, key, nonce, 1.75);
      else
        chacha_gaussian_cpu(values<float>(wanted), begin, end, key, nonce, 1.75);
      ASSERT_EQ(kernels().chacha_gaussian(values<float>(got), begin, end, key, nonce, 1.75, add,
                                          stream()),
                0);
      expect_equal(got, wanted, "noise");
    }
  }
}

TEST_F(Twins, UpdatesToTheBit) {
  ChaChaKey key;
  for (uint32_t w = 0; w < 8; ++w) key.words[w] = 0x85ebca6bu * (w + 3);
  std::vector<int64_t> counts = {1, 321, 1000};
  if (on_gpu()) counts.insert(counts.end(), {512 * 512 * 9, 3'000'001});
  for (const UpdateRule rule : {UpdateRule::kSgd, UpdateRule::kAdam, UpdateRule::kAdamW}) {
    std::vector<bridge::UpdateTensors> here, there;
    for (const int64_t count : counts) {
      bridge::UpdateTensors one;
      one.sum = at::randn({count}), one.value = at::randn({count});
      one.first = at::randn({count}), one.second = at::rand({count});
      one.average = at::randn({count});
      one.rate_scale = 0.5;
      here.push_back(one);
      bridge::UpdateTensors copy = one;
      for (at::Tensor* t : {&copy.sum, &copy.value, &copy.first, &copy.second, &copy.average})
        *t = placed(t->clone());
      there.push_back(copy);
    }
    PrivateUpdateOptions options;
    options.rule = rule;
    options.learning_rate = 0.01, options.momentum = 0.9, options.weight_decay = 0.1;
    options.correction1 = 0.19, options.correction2 = 0.002, options.average_decay = 0.99;
    options.stddev = 0.8, options.grid = 0x1p-11f, options.scale = 1.0f / 48;
    options.nonce_stream = 7, options.nonce_step = 12;
    bridge::private_update(there, options, key);
    here_.reset();  // the CPU's own routine
    bridge::private_update(here, options, key);
    here_.emplace();
    for (std::size_t j = 0; j < counts.size(); ++j) {
      expect_equal(there[j].sum, here[j].sum, "sum");
      expect_equal(there[j].value, here[j].value, "value");
      expect_equal(there[j].first, here[j].first, "first moment");
      expect_equal(there[j].second, here[j].second, "second moment");
      expect_equal(there[j].average, here[j].average, "average");
    }
  }
}

}  // namespace
}  // namespace sfumato
