#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sfumato {

/// The dictionary in front of an array, as Python writes it.
struct NpyHeader {
  std::string descr;
  bool fortran_order = false;
  std::vector<std::int64_t> shape;
};

/// Parses "{'descr': '|u1', 'fortran_order': False, 'shape': (3, 28, 28), }": the three keys once
/// each, in any order, and nothing else. Returns "" or what is wrong with the text.
std::string parse_npy_header(std::string_view text, NpyHeader& header);

}  // namespace sfumato
