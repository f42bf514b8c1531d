// CUDA twin of chacha_gaussian_cpu.cpp: the same templates over one lane per thread.
#include <cuda_runtime.h>
#include <string.h>  // explicit_bzero is not in <cstring>

#include <algorithm>

#include "kernels/chacha_gaussian.h"
#include "kernels/device/chacha20.cuh"
#include "kernels/device/launch.cuh"
#include "kernels/device/normal_pair.cuh"

namespace sfumato {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kMaxBlocks = 1 << 16;  // a stride loop covers the rest

/// Key, nonce and scale travel as a kernel argument, that is, in constant memory.
struct Arguments {
  std::uint32_t key[8];
  ChaChaNonce nonce;
  float scale;
};

template <bool kAdd>
__global__ void __launch_bounds__(kThreads)
    chacha_gaussian_kernel(float* __restrict__ out, std::int64_t begin, std::int64_t end,
                           std::int64_t first_group, std::int64_t groups, Arguments arguments) {
  const std::int64_t threads = std::int64_t{gridDim.x} * kThreads;
  std::int64_t index = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  for (; index < groups * kChaChaLanes; index += threads) {
    const std::int64_t number = first_group + index / kChaChaLanes;
    const std::int64_t lane = index % kChaChaLanes;
    std::uint32_t words[16];
    device::chacha20_block<std::uint32_t>(
        words, arguments.key, static_cast<std::uint32_t>(number * kChaChaLanes + lane),
        arguments.nonce.stream, arguments.nonce.step, arguments.nonce.tensor);
    float normals[kNormalsPerBlock];
    device::block_normals<device::ScalarOps>(words, arguments.scale, normals);
    SFUMATO_UNROLL
    for (int slot = 0; slot < kNormalsPerBlock; ++slot) {
      const std::int64_t i = number * kNormalsPerGroup + slot * kChaChaLanes + lane;
      if (i < begin || i >= end) continue;
      float* place = out + (i - begin);
      *place = kAdd ? __fadd_rn(*place, normals[slot]) : normals[slot];
    }
  }
}

}  // namespace

int launch_chacha_gaussian(float* out, std::int64_t begin, std::int64_t end, const ChaChaKey& key,
                           ChaChaNonce nonce, double stddev, bool add, void* stream) {
  if (begin >= end) return cudaSuccess;
  Arguments arguments;
  std::copy(key.words, key.words + 8, arguments.key);
  arguments.nonce = nonce;
  arguments.scale = device::rounded_up(stddev);
  const std::int64_t first_group = begin / kNormalsPerGroup;
  const std::int64_t groups = (end - 1) / kNormalsPerGroup - first_group + 1;
  const std::int64_t blocks =
      std::min(kMaxBlocks, (groups * kChaChaLanes + kThreads - 1) / kThreads);
  const int status = device::launch_secret(
      add ? chacha_gaussian_kernel<true> : chacha_gaussian_kernel<false>, device::blocks(blocks),
      kThreads, stream, out, begin, end, first_group, groups, arguments);
  explicit_bzero(&arguments, sizeof arguments);
  return status;
}

}  // namespace sfumato
