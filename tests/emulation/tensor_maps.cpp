#include "emulation/tensor_maps.h"

#include <cuda.h>

#include <cstring>

#include "emulation/emulator.h"

namespace sfumato::emulation {
namespace {

constexpr std::uint64_t kMark = 0x5366756d61746f01;

/// As it lies in the map's 128 bytes.
struct Encoded {
  std::uint64_t mark;
  std::uint64_t address;
  std::array<std::uint32_t, 5> sizes_less_one;
  std::uint32_t flags_and_rank;  // 1 im2col, 2 swizzled, rank from bit 8 on
  std::array<std::uint64_t, 4> strides;
  std::array<std::uint16_t, 5> box;
  std::array<std::uint8_t, 5> steps;
  std::array<std::int16_t, 3> lower, upper;
};
static_assert(sizeof(Encoded) <= sizeof(CUtensorMap));

/// What both kinds demand, written into `to` as far as they share it.
bool encode_tensor(Encoded& to, cuuint32_t rank, const void* address, const cuuint64_t* sizes,
                   const cuuint64_t* strides, const cuuint32_t* steps, CUtensorMapSwizzle swizzle) {
  to = {};
  to.mark = kMark;
  to.address = reinterpret_cast<std::uintptr_t>(address);
  if (rank < 1 || rank > 5 || to.address % 16 != 0) return false;
  for (cuuint32_t i = 0; i < rank; ++i) {
    if (sizes[i] == 0 || sizes[i] > std::uint64_t{1} << 32) return false;
    if (i > 0 && (steps[i] == 0 || steps[i] > 8)) return false;
    to.sizes_less_one[i] = static_cast<std::uint32_t>(sizes[i] - 1);
    to.steps[i] = static_cast<std::uint8_t>(i == 0 ? 1 : steps[i]);
    if (i + 1 == rank) break;
    if (strides[i] % 16 != 0 || strides[i] >= std::uint64_t{1} << 40) return false;
    to.strides[i] = strides[i];
  }
  to.flags_and_rank = rank << 8 | (swizzle == CU_TENSOR_MAP_SWIZZLE_128B ? 2u : 0u);
  return true;
}

CUresult finish(CUtensorMap* map, const Encoded& encoded, bool good) {
  const std::int64_t inner = std::int64_t{encoded.box[0]} * 2;
  const bool swizzled = (encoded.flags_and_rank & 2u) != 0;
  if (!good || inner % 16 != 0 || (swizzled && inner > 128) ||
      reinterpret_cast<std::uintptr_t>(map) % 64 != 0)
    return CUDA_ERROR_INVALID_VALUE;
  std::memset(map, 0, sizeof *map);
  std::memcpy(map, &encoded, sizeof encoded);
  return CUDA_SUCCESS;
}

}  // namespace

bool TensorMap::read(const void* map, TensorMap& to) {
  Encoded from;
  std::memcpy(&from, map, sizeof from);
  if (from.mark != kMark) return false;
  to = {};
  to.im2col = (from.flags_and_rank & 1u) != 0;
  to.swizzled = (from.flags_and_rank & 2u) != 0;
  to.rank = static_cast<int>(from.flags_and_rank >> 8);
  to.address = reinterpret_cast<const std::uint16_t*>(from.address);
  for (std::size_t i = 0; i < 5; ++i) {
    to.sizes[i] = std::int64_t{from.sizes_less_one[i]} + 1;
    if (i > 0) to.strides[i] = static_cast<std::int64_t>(from.strides[i - 1]);
    to.box[i] = from.box[i];
    to.steps[i] = from.steps[i];
    if (i < 3) to.lower[i] = from.lower[i];
    if (i < 3) to.upper[i] = from.upper[i];
  }
  return true;
}

std::int64_t TensorMap::box_elements() const {
  std::int64_t count = 1;
  for (int i = 0; i < (im2col ? 2 : rank); ++i) count *= box[static_cast<std::size_t>(i)];
  return count;
}

std::uint16_t TensorMap::element(const std::array<std::int64_t, 5>& at) const {
  std::int64_t bytes = 0;
  for (std::size_t i = 0; i < static_cast<std::size_t>(rank); ++i) {
    if (at[i] < 0 || at[i] >= sizes[i]) return 0;
    bytes += at[i] * strides[i];
  }
  return address[bytes / 2];
}

std::string TensorMap::problem(int rank_of_copy, const std::array<std::int32_t, 5>& at,
                               bool as_im2col, const std::array<std::uint16_t, 3>& offsets) const {
  if (rank_of_copy != rank || as_im2col != im2col)
    return "a tensor copy of another mode or rank than its map";
  if (!im2col) return "";
  const auto spatial = static_cast<std::size_t>(rank - 2);
  for (std::size_t i = 0; i < spatial; ++i) {
    if (at[i + 1] < lower[i] || at[i + 1] > sizes[i + 1] - 1 + upper[i])
      return "a tensor copy that starts outside of the bounding box";
    if (spatial == 2 && offsets[i] > 255) return "an im2col offset beyond 255";
  }
  return "";
}

std::vector<std::uint16_t> TensorMap::elements(const std::array<std::int32_t, 5>& at,
                                               const std::array<std::uint16_t, 3>& offsets) const {
  std::vector<std::uint16_t> out;
  out.reserve(static_cast<std::size_t>(box_elements()));
  std::array<std::int64_t, 5> base{};
  for (std::size_t i = 0; i < 5; ++i) base[i] = at[i];
  const auto last = static_cast<std::size_t>(rank - 1);
  if (!im2col) {
    std::array<std::int64_t, 5> inside{};
    for (std::int64_t n = 0; n < box_elements(); ++n) {
      auto place = base;
      for (std::size_t i = 0; i <= last; ++i) place[i] += inside[i];
      out.push_back(element(place));
      for (std::size_t i = 0; i <= last && ++inside[i] == box[i]; ++i) inside[i] = 0;
    }
    return out;
  }
  for (std::int64_t pixel = 0; pixel < box[1]; ++pixel) {
    auto place = base;
    for (std::size_t i = 1; i < last; ++i) place[i] += offsets[i - 1];
    for (std::int64_t channel = 0; channel < box[0]; ++channel, ++place[0])
      out.push_back(element(place));
    std::size_t i = 1;
    for (; i < last; ++i) {
      base[i] += steps[i];
      if (base[i] <= sizes[i] - 1 + upper[i - 1]) break;
      base[i] = lower[i - 1];
    }
    if (i == last) ++base[last];
  }
  return out;
}

void* driver_function(const char* name) {
  if (std::strcmp(name, "cuTensorMapEncodeTiled") == 0)
    return reinterpret_cast<void*>(&cuTensorMapEncodeTiled);
  if (std::strcmp(name, "cuTensorMapEncodeIm2col") == 0)
    return reinterpret_cast<void*>(&cuTensorMapEncodeIm2col);
  return nullptr;
}

}  // namespace sfumato::emulation

using namespace sfumato::emulation;

CUresult cuTensorMapEncodeTiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank,
                                void* address, const cuuint64_t* sizes, const cuuint64_t* strides,
                                const cuuint32_t* box, const cuuint32_t* element_strides,
                                CUtensorMapInterleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
  Encoded encoded;
  bool good = type == CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 &&
              encode_tensor(encoded, rank, address, sizes, strides, element_strides, swizzle);
  for (cuuint32_t i = 0; good && i < rank; ++i) {
    good = box[i] > 0 && box[i] <= 256 && encoded.steps[i] == 1;  // steps: nobody uses them
    encoded.box[i] = static_cast<std::uint16_t>(box[i]);
  }
  return finish(map, encoded, good);
}

CUresult cuTensorMapEncodeIm2col(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank,
                                 void* address, const cuuint64_t* sizes, const cuuint64_t* strides,
                                 const int* lower_corner, const int* upper_corner,
                                 cuuint32_t channels, cuuint32_t pixels,
                                 const cuuint32_t* element_strides, CUtensorMapInterleave,
                                 CUtensorMapSwizzle swizzle, CUtensorMapL2promotion,
                                 CUtensorMapFloatOOBfill) {
  Encoded encoded;
  bool good = type == CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 && rank >= 3 && channels > 0 &&
              channels <= 256 && pixels > 0 && pixels <= 1024 &&
              encode_tensor(encoded, rank, address, sizes, strides, element_strides, swizzle);
  const int limit = rank == 3 ? 1 << 15 : rank == 4 ? 1 << 7 : 1 << 4;
  for (cuuint32_t i = 0; good && i < rank - 2; ++i) {
    const int lower = lower_corner[i], upper = upper_corner[i];
    good = lower >= -limit && lower < limit && upper >= -limit && upper < limit &&
           static_cast<std::int64_t>(sizes[i + 1]) - 1 + upper >= lower;
    encoded.lower[i] = static_cast<std::int16_t>(lower);
    encoded.upper[i] = static_cast<std::int16_t>(upper);
  }
  encoded.box[0] = static_cast<std::uint16_t>(channels);
  encoded.box[1] = static_cast<std::uint16_t>(pixels);
  encoded.flags_and_rank |= 1u;
  return finish(map, encoded, good);
}
