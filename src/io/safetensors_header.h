#pragma once
// The JSON header of a safetensors file, apart from the file around it.

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "sfumato/io/safetensors.h"

namespace sfumato::safetensors {

struct Entry {
  std::string name;
  TensorDtype dtype = TensorDtype::kF32;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0;  ///< data_offsets, relative to the end of the header
  std::uint64_t end = 0;
};

struct Header {
  std::vector<Entry> entries;  ///< sorted by (begin, end)
  std::map<std::string, std::string> metadata;
};

/// Reads the header of a file whose data part has `data_size` bytes, and checks everything that
/// the format demands. `what` names the file in DataErrors.
Header parse_header(std::string_view text, std::uint64_t data_size, const std::string& what);

/// Bytes of a tensor, or nullopt if the product overflows or is not a whole number of bytes.
std::optional<std::uint64_t> byte_count(TensorDtype dtype, const std::vector<std::int64_t>& shape);

/// "[2, 3]"
std::string shape_text(const std::vector<std::int64_t>& shape);

}  // namespace sfumato::safetensors
