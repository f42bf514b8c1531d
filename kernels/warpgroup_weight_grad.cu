// conv_weight_grad of bfloat16 by warpgroup products: device/warpgroup_weight_grad.cuh has the
// core.
#include "kernels/warpgroup_weight_grad.h"

#include <cuda_runtime.h>

#include "kernels/device/launch.cuh"
#include "kernels/device/tensor_map.h"
#include "kernels/device/warpgroup_weight_grad.cuh"
#include "kernels/device/weight_grad_launch.h"
#include "kernels/warpgroup_weight_grad_plan.h"

namespace sfumato {
namespace {

static_assert(kWarpgroupRows == device::kWarpgroupTileRows &&
              kWarpgroupDepth == device::WarpgroupConfig<2>::kDepth &&
              kWarpgroupTokens == device::WarpgroupConfig<2>::kTokens);

/// Whether the current device executes sm_90a, and this build has code for it.
bool device_has_warpgroups() {
#if defined(SFUMATO_EMULATION) || defined(SFUMATO_SM90A)
  int device = 0, major = 0, minor = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
         cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess &&
         major == 9 && minor == 0;
#else
  return false;
#endif
}

std::int64_t shared_bytes(std::int64_t chunks) {
  switch (chunks) {
    case 2: return device::WarpgroupConfig<2>::kSharedBytes;
    case 3: return device::WarpgroupConfig<3>::kSharedBytes;
    default: return device::WarpgroupConfig<4>::kSharedBytes;
  }
}

struct Maps {
  CUtensorMap dy, x;
};

/// False where the driver does not make them.
bool make_maps(Maps& maps, const device::WeightGradTensors& tensors, const ConvShape& s) {
  constexpr auto kChannels = static_cast<std::uint32_t>(kWarpgroupChunk);
  constexpr auto kPositions = static_cast<std::uint32_t>(kWarpgroupDepth);
  if (!device::encode_tiled(maps.dy, tensors.dy, {s.out_channels, s.tokens(), s.examples},
                            {kChannels, kPositions, 1}))
    return false;
  if (is_pointwise(s))
    return device::encode_tiled(maps.x, tensors.x, {s.channels, s.tokens(), s.examples},
                                {kChannels, kPositions, 1});
  return device::encode_im2col(
      maps.x, tensors.x, {s.channels, s.width, s.height, s.examples * s.draws},
      static_cast<int>(im2col_lower(s, 1)), static_cast<int>(im2col_upper(s, 1)),
      {s.stride[1], s.stride[0]}, kChannels, kPositions);
}

template <int kChunks>
int launch_chunks(const Maps& maps, const device::WarpgroupArguments& a, std::int64_t blocks,
                  void* stream) {
  using Config = device::WarpgroupConfig<kChunks>;
  return device::launch(device::warpgroup_weight_grad_kernel<Config>, device::blocks(blocks),
                        device::kWarpgroupThreads, Config::kSharedBytes, stream, maps.dy, maps.x,
                        a);
}

}  // namespace

std::optional<int> launch_warpgroup_weight_grad(const device::WeightGradTensors& tensors,
                                                const ConvShape& shape, void* stream) {
  if (!warpgroup_takes(shape) || !device_has_warpgroups()) return std::nullopt;
  const WeightGradPlan plan = plan_warpgroup_weight_grad(shape);
  if (!device::weight_grad_in_range(shape, plan) ||
      shared_bytes(plan.tile_columns / kWarpgroupChunk) > device::most_shared_bytes())
    return std::nullopt;
  Maps maps;
  if (!make_maps(maps, tensors, shape)) return std::nullopt;
  int device = 0, multiprocessors = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device) !=
          cudaSuccess)
    return std::nullopt;
  device::WarpgroupArguments a = {};
  device::set_shape(a, shape, plan);
  device::set_tensors(a, tensors, shape, plan);
  a.units = static_cast<int>(shape.examples * plan.division.workers);
  a.chunks = static_cast<int>(warpgroup_chunks(shape));
  a.chunks_per_tap = static_cast<int>(warpgroup_chunks_per_tap(shape));
  a.pointwise = is_pointwise(shape);
  if (const int status = device::clear_arrivals(a, shape, plan, stream)) return status;
  const std::int64_t blocks = std::min<std::int64_t>(a.units, multiprocessors);
  switch (plan.tile_columns / kWarpgroupChunk) {
    case 2: return launch_chunks<2>(maps, a, blocks, stream);
    case 3: return launch_chunks<3>(maps, a, blocks, stream);
    default: return launch_chunks<4>(maps, a, blocks, stream);
  }
}

}  // namespace sfumato
