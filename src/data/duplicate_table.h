#pragma once
#include <array>
#include <cstdint>
#include <vector>

namespace sfumato {

/// The first 128 bits of the SHA-256 of an image's pixels (and user).
using PixelDigest = std::array<std::uint64_t, 2>;

/// Which (pixels, label) have been seen. Open addressing with linear probing: 24 bytes a slot, at
/// most two thirds full. Digests are uniform, so their low bits are the hash.
class DuplicateTable {
 public:
  enum class Seen { kNew, kOtherLabel, kDuplicate };

  DuplicateTable() : slots_(1024) {}

  /// Enters the pair unless it is there. kOtherLabel: the same pixels are there, with another
  /// label only; the pair is entered.
  Seen insert(const PixelDigest& digest, std::int32_t label) {
    if (3 * (count_ + 1) > 2 * slots_.size()) grow();
    Seen seen = Seen::kNew;
    std::size_t at = digest[0] & (slots_.size() - 1);
    for (; slots_[at].used; at = (at + 1) & (slots_.size() - 1)) {
      if (slots_[at].digest != digest) continue;
      if (slots_[at].label == label) return Seen::kDuplicate;
      seen = Seen::kOtherLabel;
    }
    slots_[at] = {digest, label, true};
    ++count_;
    return seen;
  }

 private:
  struct Slot {
    PixelDigest digest{};
    std::int32_t label = 0;
    bool used = false;
  };

  void grow() {
    std::vector<Slot> old(2 * slots_.size());
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (!slot.used) continue;
      std::size_t at = slot.digest[0] & (slots_.size() - 1);
      while (slots_[at].used) at = (at + 1) & (slots_.size() - 1);
      slots_[at] = slot;
    }
  }

  std::vector<Slot> slots_;  ///< a power of two
  std::size_t count_ = 0;
};

}  // namespace sfumato
