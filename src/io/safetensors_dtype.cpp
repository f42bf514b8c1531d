#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <limits>

#include "json_text.h"
#include "sfumato/core/error.h"
#include "sfumato/io/safetensors.h"

static_assert(std::endian::native == std::endian::little, "tensors are copied as they are");

namespace sfumato {
namespace {

struct DtypeRow {
  std::string_view name;
  int bits;
};

constexpr DtypeRow kRows[kTensorDtypes] = {
    {"BOOL", 8},        {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
    {"I8", 8},          {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
    {"F8_E5M2FNUZ", 8}, {"I16", 16},    {"U16", 16},    {"F16", 16},    {"BF16", 16},
    {"I32", 32},        {"U32", 32},    {"F32", 32},    {"C64", 64},    {"F64", 64},
    {"I64", 64},        {"U64", 64},
};

/// IEEE 754 binary16; every value is a float, so the result is exact.
float half_to_float(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1fu;
  const std::uint32_t mantissa = half & 0x3ffu;
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
  }
  const std::uint32_t wide = exponent == 31 ? 255 : exponent + 112;
  return std::bit_cast<float>(sign | (wide << 23) | (mantissa << 13));
}

float bfloat_to_float(std::uint16_t value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value) << 16);
}

/// Reads elements of type Stored (at any alignment) and maps each to Out.
template <class Stored, class Out, class Map>
std::vector<Out> read_as(const TensorInfo& tensor, Map map) {
  std::vector<Out> out(tensor.bytes.size() / sizeof(Stored));
  const std::byte* at = tensor.bytes.data();
  for (Out& value : out) {
    Stored stored;
    std::memcpy(&stored, at, sizeof stored);
    value = map(stored);
    at += sizeof stored;
  }
  return out;
}

template <class Stored, class Out>
std::vector<Out> cast_as(const TensorInfo& tensor) {
  return read_as<Stored, Out>(tensor, [](Stored v) { return static_cast<Out>(v); });
}

}  // namespace

std::string_view dtype_name(TensorDtype dtype) { return kRows[static_cast<int>(dtype)].name; }

int dtype_bits(TensorDtype dtype) { return kRows[static_cast<int>(dtype)].bits; }

std::optional<TensorDtype> dtype_from_name(std::string_view name) {
  for (int i = 0; i < kTensorDtypes; ++i)
    if (kRows[i].name == name) return static_cast<TensorDtype>(i);
  return std::nullopt;
}

std::int64_t TensorInfo::element_count() const {
  std::int64_t count = 1;
  for (const std::int64_t size : shape) count *= size;
  return count;
}

std::vector<float> to_float32(const TensorInfo& tensor) {
  switch (tensor.dtype) {
    case TensorDtype::kBool:
      return read_as<std::uint8_t, float>(tensor, [](auto v) { return v != 0 ? 1.0f : 0.0f; });
    case TensorDtype::kU8: return cast_as<std::uint8_t, float>(tensor);
    case TensorDtype::kI8: return cast_as<std::int8_t, float>(tensor);
    case TensorDtype::kU16: return cast_as<std::uint16_t, float>(tensor);
    case TensorDtype::kI16: return cast_as<std::int16_t, float>(tensor);
    case TensorDtype::kU32: return cast_as<std::uint32_t, float>(tensor);
    case TensorDtype::kI32: return cast_as<std::int32_t, float>(tensor);
    case TensorDtype::kU64: return cast_as<std::uint64_t, float>(tensor);
    case TensorDtype::kI64: return cast_as<std::int64_t, float>(tensor);
    case TensorDtype::kF16: return read_as<std::uint16_t, float>(tensor, half_to_float);
    case TensorDtype::kBF16: return read_as<std::uint16_t, float>(tensor, bfloat_to_float);
    case TensorDtype::kF32: return cast_as<float, float>(tensor);
    case TensorDtype::kF64: return cast_as<double, float>(tensor);
    default:
      throw DataError(
          fmt::format("tensor {} has dtype {}, which is not read as numbers; convert "
                      "the file to F32, F16 or BF16",
                      json_text::quote_name(tensor.name), dtype_name(tensor.dtype)));
  }
}

std::vector<std::int64_t> to_int64(const TensorInfo& tensor) {
  switch (tensor.dtype) {
    case TensorDtype::kBool:
      return read_as<std::uint8_t, std::int64_t>(tensor, [](auto v) { return v != 0 ? 1 : 0; });
    case TensorDtype::kU8: return cast_as<std::uint8_t, std::int64_t>(tensor);
    case TensorDtype::kI8: return cast_as<std::int8_t, std::int64_t>(tensor);
    case TensorDtype::kU16: return cast_as<std::uint16_t, std::int64_t>(tensor);
    case TensorDtype::kI16: return cast_as<std::int16_t, std::int64_t>(tensor);
    case TensorDtype::kU32: return cast_as<std::uint32_t, std::int64_t>(tensor);
    case TensorDtype::kI32: return cast_as<std::int32_t, std::int64_t>(tensor);
    case TensorDtype::kI64: return cast_as<std::int64_t, std::int64_t>(tensor);
    case TensorDtype::kU64:
      return read_as<std::uint64_t, std::int64_t>(tensor, [&](std::uint64_t v) {
        if (v > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
          throw DataError(fmt::format("tensor {} holds {}, which does not fit a 64-bit integer",
                                      json_text::quote_name(tensor.name), v));
        return static_cast<std::int64_t>(v);
      });
    default:
      throw DataError(
          fmt::format("tensor {} has dtype {} where integers are expected; store it "
                      "as I64 or I32",
                      json_text::quote_name(tensor.name), dtype_name(tensor.dtype)));
  }
}

}  // namespace sfumato
