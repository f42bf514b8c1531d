// CUDA kernel of the private update: one warp per group of 320 elements, one lane per ChaCha20
// block; lane l of a warp owns elements slot * 32 + l, so that every access is a whole line.
#include "kernels/private_update.h"

#include <cuda_runtime.h>
#include <string.h>  // explicit_bzero is not in <cstring>

#include <algorithm>

#include "kernels/device/chacha20.cuh"
#include "kernels/device/launch.cuh"
#include "kernels/device/normal_pair.cuh"
#include "kernels/device/update_rule.cuh"

namespace sfumato {
namespace {

using device::UpdateForm;

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * device::kWarp;
/// Blocks a multiprocessor holds: up to 72 registers a thread and 28 warps.
constexpr int kResidentBlocks = 7;
/// Groups of one warp: they share the search for the first one's tensor.
constexpr int kTurns = 4;
constexpr std::int64_t kGroupsPerBlock = kWarps * kTurns;
/// Slots of a whole group in flight together: enough loads to cover their latency.
constexpr int kSlots = 5;
static_assert(kNormalsPerBlock % kSlots == 0);

/// Travels as a kernel argument, that is, in constant memory.
struct Arguments {
  std::uint32_t key[8];
  std::uint32_t nonce_stream, nonce_step;
  float stddev;
  device::UpdateCoefficients coefficients;
};

/// Elements `start`, start + 32, ... of kCount slots. The arithmetic for an average runs whether
/// one is kept or not: a branch would double the code.
template <UpdateForm kForm, bool kNoise, int kCount>
__device__ __forceinline__ void update_slots(const PrivateUpdateTensor& tensor, std::int64_t start,
                                             const float* normals, const device::TensorRates& rates,
                                             const device::UpdateCoefficients& c) {
  constexpr bool kFirst = kForm != UpdateForm::kPlain, kSecond = kForm == UpdateForm::kAdam;
  const bool averages = tensor.average != nullptr;
  float sum[kCount], value[kCount], first[kCount] = {}, second[kCount] = {}, average[kCount] = {};
  SFUMATO_UNROLL
  for (int slot = 0; slot < kCount; ++slot) {
    const std::int64_t i = start + slot * kChaChaLanes;
    sum[slot] = tensor.sum[i];
    value[slot] = tensor.value[i];
    if constexpr (kFirst) first[slot] = tensor.first[i];
    if constexpr (kSecond) second[slot] = tensor.second[i];
    if (averages) average[slot] = tensor.average[i];
  }
  SFUMATO_UNROLL
  for (int slot = 0; slot < kCount; ++slot) {
    const std::int64_t i = start + slot * kChaChaLanes;
    const float gradient =
        kNoise ? device::released_gradient(device::ScalarOps::add(sum[slot], normals[slot]), c)
               : device::ScalarOps::mul(sum[slot], c.scale);
    device::update_element<kForm>(gradient, c, rates, value[slot], first[slot], second[slot]);
    average[slot] = device::update_average(average[slot], value[slot], c);
    tensor.sum[i] = 0;
    tensor.value[i] = value[slot];
    if constexpr (kFirst) tensor.first[i] = first[slot];
    if constexpr (kSecond) tensor.second[i] = second[slot];
    if (averages) tensor.average[i] = average[slot];
  }
}

template <UpdateForm kForm, bool kNoise>
__device__ __forceinline__ void update_group(const PrivateUpdateTensor& tensor, std::int64_t number,
                                             int lane, const Arguments& arguments) {
  float normals[kNormalsPerBlock] = {};
  if constexpr (kNoise) {
    std::uint32_t words[16];
    device::chacha20_block<std::uint32_t>(
        words, arguments.key,
        static_cast<std::uint32_t>((tensor.noise_group + number) * kChaChaLanes + lane),
        arguments.nonce_stream, arguments.nonce_step, tensor.nonce_tensor);
    device::block_normals<device::ScalarOps>(words, arguments.stddev, normals);
  }
  const device::UpdateCoefficients& c = arguments.coefficients;
  const device::TensorRates rates = device::tensor_rates(c, tensor.rate_scale);
  const std::int64_t start = number * kNormalsPerGroup + lane;
  if ((number + 1) * kNormalsPerGroup <= tensor.count) {
    SFUMATO_UNROLL
    for (int slot = 0; slot < kNormalsPerBlock; slot += kSlots)
      update_slots<kForm, kNoise, kSlots>(tensor, start + slot * kChaChaLanes, normals + slot,
                                          rates, c);
  } else {  // a tensor's last group; the normals move up, as registers have no index
    for (std::int64_t i = start; i < tensor.count; i += kChaChaLanes) {
      update_slots<kForm, kNoise, 1>(tensor, i, normals, rates, c);
      SFUMATO_UNROLL
      for (int slot = 1; slot < kNormalsPerBlock; ++slot) normals[slot - 1] = normals[slot];
    }
  }
}

/// A block's groups are consecutive and its warps take them in turn.
template <UpdateForm kForm, bool kNoise>
__global__ void __launch_bounds__(kThreads, kResidentBlocks)
    private_update_kernel(const PrivateUpdateTensor* __restrict__ table, int tensors,
                          std::int64_t groups, Arguments arguments) {
  const int warp = static_cast<int>(threadIdx.x) / device::kWarp;
  const int lane = static_cast<int>(threadIdx.x) % device::kWarp;
  std::int64_t group = std::int64_t{blockIdx.x} * kGroupsPerBlock + warp;
  if (group >= groups) return;
  int index = device::tensor_of_group(table, tensors, group);
  for (int turn = 0; turn < kTurns && group < groups; ++turn, group += kWarps) {
    while (index + 1 < tensors && table[index + 1].first_group <= group) ++index;
    const PrivateUpdateTensor tensor = table[index];
    update_group<kForm, kNoise>(tensor, group - tensor.first_group, lane, arguments);
  }
}

template <UpdateForm kForm>
int start(const PrivateUpdateTensor* table, std::int64_t tensors, std::int64_t groups,
          bool add_noise, const Arguments& arguments, void* stream) {
  const std::int64_t blocks = (groups + kGroupsPerBlock - 1) / kGroupsPerBlock;
  return device::launch_secret(
      add_noise ? private_update_kernel<kForm, true> : private_update_kernel<kForm, false>,
      device::blocks(blocks), kThreads, stream, table, static_cast<int>(tensors), groups,
      arguments);
}

}  // namespace

int launch_private_update(const PrivateUpdateTensor* table, std::int64_t tensors,
                          std::int64_t groups, const PrivateUpdateOptions& options,
                          const ChaChaKey& key, void* stream) {
  if (groups <= 0) return cudaSuccess;
  Arguments arguments = {};
  if (options.add_noise) std::copy(key.words, key.words + 8, arguments.key);
  arguments.nonce_stream = options.nonce_stream;
  arguments.nonce_step = options.nonce_step;
  arguments.stddev = device::rounded_up(options.stddev);
  arguments.coefficients = device::update_coefficients(options);
  const UpdateForm form = device::update_form(options);
  const auto run = form == UpdateForm::kAdam       ? start<UpdateForm::kAdam>
                   : form == UpdateForm::kMomentum ? start<UpdateForm::kMomentum>
                                                   : start<UpdateForm::kPlain>;
  const int status = run(table, tensors, groups, options.add_noise, arguments, stream);
  explicit_bzero(&arguments, sizeof arguments);
  return status;
}

}  // namespace sfumato
