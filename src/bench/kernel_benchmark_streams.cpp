// Kernels whose time is that of the bytes they move, on tensors of google/ddpm-cifar10-32.
#include <fmt/format.h>

#include "bench/kernel_suite.h"
#include "sfumato/bench/layer_list.h"
#include "sfumato/bench/step_benchmark.h"
#include "sfumato/device/kernel_bridge.h"

namespace sfumato {
namespace {

constexpr int64_t kGroups = 32;

const char* plain_name(at::ScalarType type) { return type == at::kBFloat16 ? "bf16" : "fp32"; }

KernelRow row_of(const char* kernel, std::string shape, at::ScalarType type, int64_t elements,
                 double passes) {
  KernelRow row;
  row.kernel = kernel;
  row.shape = std::move(shape);
  row.element = plain_name(type);
  row.bytes = passes * static_cast<double>(elements) * (type == at::kBFloat16 ? 2 : 4);
  return row;
}

/// Kernels want channels last, the CPU's twins the ordinary layout.
at::Tensor image(const KernelSuite& suite, at::IntArrayRef sizes, at::ScalarType type) {
  const at::Tensor x = suite.random(sizes, type);
  return suite.on_gpu() ? x.contiguous(at::MemoryFormat::ChannelsLast) : x;
}

void add_group_norm(KernelSuite& suite, int64_t channels, int64_t side, at::ScalarType type) {
  const int64_t draws = suite.options().draws;
  const int64_t examples = suite.on_gpu() ? suite.options().examples : 4;
  const std::vector<int64_t> sizes{examples * draws, channels, side, side};
  const int64_t elements = examples * draws * channels * side * side;
  const std::string shape = fmt::format("{}x{}x{}x{}, SiLU", sizes[0], channels, side, side);
  const auto forward = [=](const at::Tensor& x, const at::Tensor& gamma, const at::Tensor& beta) {
    return bridge::group_norm(x, gamma, beta, kGroups, 1e-6, FusedActivation::kSilu);
  };
  suite.add(row_of("group_norm_forward", shape, type, elements, 2), [&]() -> KernelSuite::Work {
    return [=, x = image(suite, sizes, type), gamma = suite.random({channels}, at::kFloat),
            beta = suite.random({channels}, at::kFloat)] { (void)forward(x, gamma, beta); };
  });
  suite.add(row_of("group_norm_backward", shape, type, elements, 3), [&]() -> KernelSuite::Work {
    const at::Tensor x = image(suite, sizes, type), dy = image(suite, sizes, type);
    const at::Tensor gamma = suite.random({channels}, at::kFloat);
    const at::Tensor beta = suite.random({channels}, at::kFloat);
    return [=, saved = forward(x, gamma, beta)] {
      (void)bridge::group_norm_backward(x, dy, saved, gamma, beta, examples, kGroups,
                                        FusedActivation::kSilu, /*want_dx=*/true,
                                        /*want_gamma=*/true);
    };
  });
}

void add_layer_norm(KernelSuite& suite, at::ScalarType type) {
  const int64_t examples = suite.options().examples, rows = examples * 2048, channels = 512;
  suite.add_on_gpu(
      row_of("layer_norm_backward", fmt::format("{}x{}", rows, channels), type, rows * channels, 3),
      [&]() -> KernelSuite::Work {
        return [=, x = suite.random({rows, channels}, type),
                dy = suite.random({rows, channels}, type), mean = suite.zeros({rows}, at::kFloat),
                rstd = suite.zeros({rows}, at::kFloat).fill_(1),
                gamma = suite.random({channels}, at::kFloat)] {
          (void)bridge::layer_norm_backward(x, dy, mean, rstd, gamma, examples, true, true);
        };
      });
}

void add_rows(KernelSuite& suite, at::ScalarType type) {
  const int64_t examples = suite.options().examples, columns = 256 * 9 * 512;
  suite.add_on_gpu(
      row_of("row_squared_norms", fmt::format("{}x{}", examples, columns), type, examples * columns,
             1),
      [&]() -> KernelSuite::Work {
        return [rows = suite.random({examples, columns}, type)] { (void)bridge::row_norms(rows); };
      });
  const int64_t tokens = suite.options().draws * 1024, width = 128;
  const std::string shape = fmt::format("{}x{}x{}", examples, tokens, width);
  suite.add_on_gpu(row_of("bias_norm", shape, type, examples * tokens * width, 1),
                   [&]() -> KernelSuite::Work {
                     return [dy = suite.random({examples, tokens, width}, type)] {
                       (void)bridge::bias_gradients(dy);
                     };
                   });
  suite.add_on_gpu(row_of("scale_examples", shape, type, examples * tokens * width, 2),
                   [&]() -> KernelSuite::Work {
                     return [in = suite.random({examples, tokens, width}, type),
                             factors = suite.zeros({examples}, at::kFloat).fill_(0.5)] {
                       (void)bridge::scaled_examples(in, factors);
                     };
                   });
}

/// Of all parameters of the network.
void add_exact_sum(KernelSuite& suite) {
  const int64_t count = 35'746'307;
  const std::string shape = fmt::format("{}", count);
  suite.add(row_of("exact_sum_add", shape, at::kFloat, count, 5), [&]() -> KernelSuite::Work {
    return [values = suite.random({count}, at::kFloat), sum = suite.zeros({count}, at::kLong)] {
      bridge::exact_sum_add(values, {0x1p20, 0x1p40}, /*store=*/false, sum);
    };
  });
  suite.add(row_of("exact_sum_take", shape, at::kFloat, count, 3), [&]() -> KernelSuite::Work {
    return [sum = suite.zeros({count}, at::kLong), out = suite.zeros({count}, at::kFloat)] {
      bridge::exact_sum_take(sum, 0x1p-20, out);
    };
  });
}

void add_embedding(KernelSuite& suite) {
  const int64_t examples = suite.options().examples, tokens = suite.options().draws;
  const int64_t width = 512, rows = 1000;
  const std::string shape = fmt::format("{}x{}x{} of {} rows", examples, tokens, width, rows);
  const auto indices = [=, &suite] {
    return suite.zeros({examples, tokens}, at::kLong).random_(0, rows);
  };
  const int64_t elements = examples * tokens * width;
  suite.add_on_gpu(
      row_of("embedding_norm", shape, at::kFloat, elements, 1), [&]() -> KernelSuite::Work {
        return [rows = indices(), dy = suite.random({examples, tokens, width}, at::kFloat)] {
          (void)bridge::embedding_norms(rows, dy);
        };
      });
  suite.add_on_gpu(
      row_of("embedding_accumulate", shape, at::kFloat, elements, 3), [&]() -> KernelSuite::Work {
        return [looked_up = indices(), dy = suite.random({examples, tokens, width}, at::kFloat),
                factors = suite.zeros({examples}, at::kFloat).fill_(0.5),
                table = suite.zeros({rows, width}, at::kFloat)] {
          bridge::embedding_accumulate(looked_up, dy, factors, table);
        };
      });
}

void add_clip_factors(KernelSuite& suite) {
  const int64_t layers = 230, examples = suite.on_gpu() ? suite.options().examples : 65536;
  KernelRow row;
  row.kernel = "clip_factors";
  row.shape = fmt::format("{} parameters, {} examples", layers, examples);
  row.element = "fp32";
  row.bytes = static_cast<double>(examples * (8 * layers + 17));
  suite.add(row, [&]() -> KernelSuite::Work {
    return [norms = suite.random({layers, examples}, at::kDouble).square()] {
      (void)bridge::clip_factors(norms, {}, {});
    };
  });
}

/// All weights of the network at once, as a step has them.
void add_clip_accumulate(KernelSuite& suite, at::ScalarType type) {
  const int64_t examples = suite.options().examples;
  std::vector<int64_t> counts;
  int64_t all = 0;
  for (const LayerWork& layer : layers_of(builtin_step_case("cifar10").network, 1)) {
    counts.push_back(layer.fan_in * layer.fan_out);
    all += counts.back();
  }
  const double size = type == at::kBFloat16 ? 2 : 4;
  KernelRow row =
      row_of("clip_accumulate",
             fmt::format("{} weights of {} elements, {} examples", counts.size(), all, examples),
             type, 0, 0);
  row.bytes = static_cast<double>(all) * (size * static_cast<double>(examples) + 8);
  suite.add_on_gpu(row, [&]() -> KernelSuite::Work {
    std::vector<bridge::KeptEntry> entries;
    for (const int64_t count : counts)
      entries.push_back(
          {suite.random({examples, count}, type), suite.zeros({count}, at::kFloat), 0});
    return [entries = std::move(entries),
            factors = suite.zeros({1, examples}, at::kFloat).fill_(0.5)] {
      bridge::clip_accumulate(entries, factors);
    };
  });
}

}  // namespace

void add_streaming_kernels(KernelSuite& suite) {
  const std::vector<at::ScalarType> types =
      suite.on_gpu() ? std::vector{at::kBFloat16, at::kFloat} : std::vector{at::kFloat};
  for (const at::ScalarType type : types) {
    add_group_norm(suite, 128, 32, type);
    add_group_norm(suite, 256, 16, type);
    add_group_norm(suite, 256, 8, type);
    add_group_norm(suite, 512, 4, type);
    add_layer_norm(suite, type);
    add_rows(suite, type);
    add_clip_accumulate(suite, type);
  }
  add_exact_sum(suite);
  add_embedding(suite);
  add_clip_factors(suite);
}

}  // namespace sfumato
