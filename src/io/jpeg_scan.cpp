#include "jpeg_scan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "byte_view.h"

namespace sfumato {
namespace {

/// Bits of entropy-coded data, up to the next marker.
class BitReader {
 public:
  BitReader(std::string_view bytes, std::size_t at) : bytes_(bytes), at_(at) {}

  /// The next 16 bits; zeros stand behind the end.
  unsigned peek16() {
    if (count_ < 16) fill();
    return static_cast<unsigned>(count_ >= 16 ? bits_ >> (count_ - 16) : bits_ << (16 - count_)) &
           0xFFFF;
  }
  void skip(int count) {
    if (count_ < count) fill();
    if (count_ < count) exhausted_ = true;
    count_ = std::max(0, count_ - count);
    bits_ &= (std::uint64_t{1} << count_) - 1;
  }
  unsigned read(int count) {
    if (count == 0) return 0;
    const unsigned value = peek16() >> (16 - count);
    skip(count);
    return value;
  }
  bool exhausted() const { return exhausted_; }
  /// Whether the padding of the last byte is all that is left.
  bool at_marker() {
    fill();
    return count_ < 8;
  }
  /// Passes over the marker that ends the data; 0 at the end of the file.
  unsigned take_marker() {
    while (at_ + 1 < bytes_.size() && bytes_[at_] == '\xFF' && bytes_[at_ + 1] == '\xFF') ++at_;
    if (at_ + 1 >= bytes_.size() || bytes_[at_] != '\xFF') return 0;
    at_ += 2;
    count_ = 0;
    bits_ = 0;
    return static_cast<unsigned char>(bytes_[at_ - 1]);
  }
  std::size_t at() const { return at_; }

 private:
  void fill() {
    while (count_ <= 48 && at_ < bytes_.size()) {
      const auto byte = static_cast<unsigned char>(bytes_[at_]);
      if (byte == 0xFF) {
        if (at_ + 1 >= bytes_.size() || bytes_[at_ + 1] != '\0') return;  // a marker
        ++at_;
      }
      ++at_;
      bits_ = bits_ << 8 | byte;
      count_ += 8;
    }
  }

  std::string_view bytes_;
  std::size_t at_;
  std::uint64_t bits_ = 0;  ///< the lowest count_ bits
  int count_ = 0;
  bool exhausted_ = false;
};

/// Canonical Huffman code (ITU-T T.81, annex C), codes of up to 9 bits in one look.
class HuffmanTable {
 public:
  bool is_set() const { return is_set_; }

  /// From a DHT segment's 16 counts and its symbols; false if it is none.
  bool set(std::string_view counts, std::string_view symbols) {
    symbols_.assign(symbols.begin(), symbols.end());
    quick_.fill(0);
    unsigned code = 0, index = 0;
    for (unsigned length = 1; length <= 16; ++length) {
      const auto count = static_cast<unsigned char>(counts[length - 1]);
      first_code_[length] = code;
      first_index_[length] = index;
      if (code + count > 1u << length) return false;
      for (unsigned i = 0; i < count; ++i, ++code, ++index)
        if (length <= kQuickBits)
          for (unsigned rest = 0; rest < 1u << (kQuickBits - length); ++rest)
            quick_[(code << (kQuickBits - length)) + rest] = static_cast<std::uint16_t>(
                length << 8 | static_cast<unsigned char>(symbols_[index]));
      end_code_[length] = code;
      code <<= 1;
    }
    return is_set_ = true;
  }

  /// -1: no such code.
  int decode(BitReader& bits) const {
    const unsigned next = bits.peek16();
    if (const unsigned quick = quick_[next >> (16 - kQuickBits)]; quick != 0) {
      bits.skip(static_cast<int>(quick >> 8));
      return static_cast<int>(quick & 0xFF);
    }
    for (unsigned length = kQuickBits + 1; length <= 16; ++length) {
      const unsigned code = next >> (16 - length);
      if (code >= end_code_[length]) continue;
      bits.skip(static_cast<int>(length));
      return static_cast<unsigned char>(
          symbols_[first_index_[length] + code - first_code_[length]]);
    }
    return -1;
  }

 private:
  static constexpr unsigned kQuickBits = 9;
  bool is_set_ = false;
  std::string symbols_;
  std::array<std::uint16_t, 1 << kQuickBits> quick_{};  ///< length and symbol; 0: a longer code
  std::array<unsigned, 17> first_code_{}, first_index_{}, end_code_{};
};

struct Component {
  unsigned id = 0;
  std::int64_t across = 1, down = 1;                ///< sampling factors
  std::int64_t blocks_across = 0, blocks_down = 0;  ///< that hold the picture
  std::int64_t stride = 0;                          ///< blocks across, up to whole MCUs
  std::vector<std::uint64_t> nonzero;  ///< progressive: a bit a coefficient, for each block
};

/// What a start-of-scan segment says.
struct Scan {
  struct Part {
    Component* component;
    const HuffmanTable* dc;
    const HuffmanTable* ac;
  };
  std::vector<Part> parts;
  int first = 0, last = 63, high = 0;
};

class ScanChecker {
 public:
  explicit ScanChecker(std::string_view bytes) : bytes_(bytes) {}

  std::string run() {
    for (std::size_t at = 2; at + 4 <= bytes_.size();) {
      if (bytes_[at] != '\xFF') return "";
      const auto marker = static_cast<unsigned char>(bytes_[at + 1]);
      if (marker == 0xFF) {
        ++at;
        continue;
      }
      if (marker == 0xD9) return "";
      if (marker == 0x01 || (marker >= 0xD0 && marker <= 0xD8)) {
        at += 2;
        continue;
      }
      const std::size_t length = big_endian(bytes_, at + 2, 2);
      if (length < 2 || length > bytes_.size() - at - 2) return "";
      const std::string_view content = bytes_.substr(at + 4, length - 2);
      at += 2 + length;
      if (!read_segment(marker, content)) return "";
      if (marker == 0xDA) {
        BitReader bits(bytes_, at);
        const std::string problem = check_scan(content, bits);
        if (!problem.empty() || !is_followed_) return problem;
        at = bits.at();
      }
    }
    return "";
  }

 private:
  /// False: a kind of JPEG that is not followed.
  bool read_segment(unsigned marker, std::string_view content) {
    if (marker == 0xC4) return read_tables(content);
    if (marker == 0xDD && content.size() >= 2)
      restart_interval_ = static_cast<std::int64_t>(big_endian(content, 0, 2));
    if (marker == 0xC0 || marker == 0xC1 || marker == 0xC2) return read_frame(marker, content);
    return marker != 0xDC && (marker < 0xC3 || marker > 0xCF || marker == 0xC8);
  }

  bool read_tables(std::string_view content) {
    while (content.size() >= 17) {
      const unsigned which = static_cast<unsigned char>(content[0]);
      std::size_t count = 0;
      for (int i = 1; i <= 16; ++i) count += static_cast<unsigned char>(content[i]);
      if ((which & 0xEC) != 0 || count > 256 || content.size() < 17 + count) return false;
      if (!tables_[which >> 4][which & 3].set(content.substr(1, 16), content.substr(17, count)))
        return false;
      content.remove_prefix(17 + count);
    }
    return true;
  }

  bool read_frame(unsigned marker, std::string_view content) {
    if (!components_.empty() || content.size() < 6 || content[0] != 8) return false;
    progressive_ = marker == 0xC2;
    const auto height = static_cast<std::int64_t>(big_endian(content, 1, 2));
    const auto width = static_cast<std::int64_t>(big_endian(content, 3, 2));
    const std::size_t count = big_endian(content, 5, 1);
    if (height == 0 || width == 0 || count < 1 || count > 4 || content.size() < 6 + 3 * count)
      return false;
    std::int64_t most_across = 1, most_down = 1;
    for (std::size_t i = 0; i < count; ++i) {
      Component c;
      c.id = static_cast<unsigned char>(content[6 + 3 * i]);
      c.across = static_cast<unsigned char>(content[7 + 3 * i]) >> 4;
      c.down = static_cast<unsigned char>(content[7 + 3 * i]) & 15;
      if (c.across < 1 || c.across > 4 || c.down < 1 || c.down > 4) return false;
      most_across = std::max(most_across, c.across);
      most_down = std::max(most_down, c.down);
      components_.push_back(std::move(c));
    }
    const auto divide_up = [](std::int64_t a, std::int64_t b) { return (a + b - 1) / b; };
    mcus_across_ = divide_up(width, 8 * most_across);
    mcus_down_ = divide_up(height, 8 * most_down);
    for (Component& c : components_) {
      c.blocks_across = divide_up(divide_up(width * c.across, most_across), 8);
      c.blocks_down = divide_up(divide_up(height * c.down, most_down), 8);
      c.stride = mcus_across_ * c.across;
      if (progressive_)
        c.nonzero.assign(static_cast<std::size_t>(c.stride * mcus_down_ * c.down), 0);
    }
    return true;
  }

  /// False: of a kind that is not followed.
  bool read_scan(std::string_view content, Scan& scan) {
    const std::size_t count = content.empty() ? 0 : static_cast<unsigned char>(content[0]);
    if (count < 1 || count > 4 || content.size() < 4 + 2 * count) return false;
    scan.first = static_cast<unsigned char>(content[1 + 2 * count]);
    scan.last = static_cast<unsigned char>(content[2 + 2 * count]);
    scan.high = static_cast<unsigned char>(content[3 + 2 * count]) >> 4;
    if (!progressive_) scan.first = 0, scan.last = 63, scan.high = 0;
    if (scan.last > 63 || scan.first > scan.last || (scan.first > 0 && count > 1)) return false;
    if (progressive_ && scan.first == 0 && scan.last > 0) return false;
    for (std::size_t i = 0; i < count; ++i) {
      const unsigned id = static_cast<unsigned char>(content[1 + 2 * i]);
      const unsigned tables = static_cast<unsigned char>(content[2 + 2 * i]);
      const auto at = std::ranges::find(components_, id, &Component::id);
      if (at == components_.end() || (tables & 0xCC) != 0) return false;
      scan.parts.push_back({&*at, &tables_[0][tables >> 4], &tables_[1][tables & 3]});
      const bool needs_dc = scan.first == 0 && scan.high == 0;
      if ((needs_dc && !scan.parts.back().dc->is_set()) ||
          (scan.last > 0 && !scan.parts.back().ac->is_set()))
        return false;
    }
    return true;
  }

  std::string check_scan(std::string_view content, BitReader& bits) {
    Scan scan;
    is_followed_ = read_scan(content, scan);
    if (!is_followed_) return "";
    const Component& only = *scan.parts.front().component;
    const bool alone = scan.parts.size() == 1;
    const std::int64_t across = alone ? only.blocks_across : mcus_across_;
    const std::int64_t units = across * (alone ? only.blocks_down : mcus_down_);
    end_run_ = 0;
    for (std::int64_t unit = 0; unit < units; ++unit) {
      if (restart_interval_ > 0 && unit > 0 && unit % restart_interval_ == 0) {
        const auto turn = static_cast<unsigned>((unit / restart_interval_ - 1) % 8);
        if (!bits.at_marker() || bits.take_marker() != 0xD0 + turn)
          return fmt::format("no restart marker where one belongs, at block group {}", unit);
        end_run_ = 0;
      }
      if (!check_unit(scan, alone, unit / across, unit % across, bits) || bits.exhausted())
        return fmt::format("codes that fit no picture at block group {} of {}", unit, units);
    }
    if (!bits.at_marker()) return "coded data behind the last block";
    return "";
  }

  bool check_unit(const Scan& scan, bool alone, std::int64_t y, std::int64_t x, BitReader& bits) {
    for (const Scan::Part& part : scan.parts) {
      Component& c = *part.component;
      const std::int64_t down = alone ? 1 : c.down, across = alone ? 1 : c.across;
      for (std::int64_t v = 0; v < down; ++v)
        for (std::int64_t h = 0; h < across; ++h) {
          std::uint64_t unused = 0;
          const std::int64_t block = (y * down + v) * c.stride + x * across + h;
          std::uint64_t& nonzero =
              progressive_ ? c.nonzero[static_cast<std::size_t>(block)] : unused;
          if (!check_block(scan, part, nonzero, bits)) return false;
        }
    }
    return true;
  }

  bool check_block(const Scan& scan, const Scan::Part& part, std::uint64_t& nonzero,
                   BitReader& bits) {
    if (scan.first > 0 && scan.high > 0) return refine_block(scan, *part.ac, nonzero, bits);
    int k = scan.first;
    if (k == 0) {
      if (scan.high > 0) {
        bits.skip(1);
        return true;
      }
      const int size = part.dc->decode(bits);
      if (size < 0 || size > 11) return false;
      bits.skip(size);
      ++k;
    }
    if (end_run_ > 0) {
      --end_run_;
      return true;
    }
    while (k <= scan.last) {
      const int code = part.ac->decode(bits);
      if (code < 0) return false;
      const int run = code >> 4, size = code & 15;
      if (size > 0) {
        k += run;
        if (k > scan.last) return false;
        nonzero |= std::uint64_t{1} << k++;
        bits.skip(size);
      } else if (run == 15) {
        k += 16;
        if (k > scan.last + 1) return false;
      } else {
        if (run > 0 && !progressive_) return false;
        end_run_ = (std::int64_t{1} << run) + bits.read(run) - 1;
        break;
      }
    }
    return true;
  }

  /// A later pass over coefficients: a bit for each that is there, codes for new ones (G.1.2.3).
  bool refine_block(const Scan& scan, const HuffmanTable& table, std::uint64_t& nonzero,
                    BitReader& bits) {
    int k = scan.first;
    while (end_run_ == 0 && k <= scan.last) {
      const int code = table.decode(bits);
      if (code < 0) return false;
      int run = code >> 4;
      const int size = code & 15;
      if (size > 1) return false;
      if (size == 1) bits.skip(1);
      if (size == 0 && run < 15) {
        end_run_ = (std::int64_t{1} << run) + bits.read(run);
        break;
      }
      for (; k <= scan.last; ++k) {
        if ((nonzero >> k & 1) != 0)
          bits.skip(1);
        else if (run-- == 0)
          break;
      }
      if (k > scan.last && (size == 1 || run > 0)) return false;
      if (size == 1) nonzero |= std::uint64_t{1} << k;
      ++k;
    }
    if (end_run_ == 0) return true;
    for (; k <= scan.last; ++k)
      if ((nonzero >> k & 1) != 0) bits.skip(1);
    --end_run_;
    return true;
  }

  std::string_view bytes_;
  std::array<std::array<HuffmanTable, 4>, 2> tables_;  ///< DC and AC, by number
  std::vector<Component> components_;
  bool progressive_ = false;
  bool is_followed_ = true;
  std::int64_t mcus_across_ = 0, mcus_down_ = 0;
  std::int64_t restart_interval_ = 0;
  std::int64_t end_run_ = 0;  ///< blocks that hold nothing more of this scan
};

}  // namespace

std::string check_jpeg_scans(std::string_view bytes) { return ScanChecker(bytes).run(); }

}  // namespace sfumato
