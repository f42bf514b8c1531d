#pragma once
#include <string>
#include <string_view>

namespace sfumato {

/// Follows the Huffman codes of a JPEG (sequential or progressive, 8 bits) from the first block to
/// the last and says what does not fit: a code that does not exist, coefficients beyond the end of
/// a block, data that end too early or too late, a restart marker out of turn. Empty: all fits, or
/// the file is of a kind that is not followed (arithmetic codes, tables left to the decoder). No
/// pixels are made. Needed because libjpeg notices little of what is lost in the middle: codes fall
/// into step again after a few blocks, and coefficients beyond the end of a block are dropped
/// silently.
std::string check_jpeg_scans(std::string_view bytes);

}  // namespace sfumato
