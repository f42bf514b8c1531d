#include "emulation/warpgroup_products.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "kernels/element.h"

namespace sfumato::emulation {
namespace {

constexpr int kDepth = 16;

/// A shared-memory descriptor (PTX ISA 9.7.15.5.1.2.2).
struct Operand {
  std::uint32_t start, leading, stride;
  unsigned base_offset, swizzle;

  explicit Operand(std::uint64_t bits)
      : start(static_cast<std::uint32_t>(bits & 0x3fff) << 4),
        leading(static_cast<std::uint32_t>(bits >> 16 & 0x3fff) << 4),
        stride(static_cast<std::uint32_t>(bits >> 32 & 0x3fff) << 4),
        base_offset(static_cast<unsigned>(bits >> 49 & 7)),
        swizzle(static_cast<unsigned>(bits >> 62)) {}

  /// Where element (along M or N, k) lies, under the swizzle of 128 bytes: 8 rows of 128 bytes are
  /// an atom. M or N major: a row is one k and 64 of the other; `stride` from 8 k to the next 8,
  /// `leading` from 64 to the next 64. K major: a row is one of M or N; `stride` from 8 to the next
  /// 8, `leading` is not used.
  std::uint32_t address(int mn, int k, bool mn_major) const {
    const auto m = static_cast<std::uint32_t>(mn), depth = static_cast<std::uint32_t>(k);
    return swizzled_128(mn_major ? start + m / 64 * leading + depth / 8 * stride + depth % 8 * 128 +
                                       m % 64 * 2
                                 : start + m / 8 * stride + m % 8 * 128 + depth * 2);
  }
};

}  // namespace

void WarpgroupProducts::clear() {
  fenced_ = false;
  started_ = 0;
  products_.clear();
  group_ends_.clear();
  sums_.clear();
}

std::string WarpgroupProducts::problem(const WarpgroupProduct& product) const {
  if (!fenced_) return "a warpgroup product without wgmma.fence since registers were accessible";
  if (product.columns < 8 || product.columns > 256 || product.columns % 8 != 0)
    return "a warpgroup product of " + std::to_string(product.columns) + " columns";
  for (const std::uint64_t bits : {product.a, product.b}) {
    const Operand operand(bits);
    if (operand.swizzle != 1 || operand.base_offset != 0)
      return "a warpgroup product of operands that are not swizzled by 128 bytes";
  }
  return "";
}

void WarpgroupProducts::start(const WarpgroupProduct& product) {
  const auto count = static_cast<std::size_t>(product.columns) / 2;
  auto& sums = sums_[product.d];
  if (sums.empty()) sums.assign(product.d, product.d + count);
  std::memset(product.d, 0xff, count * sizeof(float));
  products_.push_back(product);
  ++started_;
}

bool WarpgroupProducts::wait(int pending_groups, unsigned thread, const AsyncProxy& proxy) {
  const auto groups = static_cast<std::ptrdiff_t>(group_ends_.size()) - pending_groups;
  if (groups <= 0) return true;
  fenced_ = false;
  const std::size_t done = group_ends_[static_cast<std::size_t>(groups - 1)];
  bool inside = true;
  for (std::size_t i = 0; i < done; ++i) inside = multiply(products_[i], thread, proxy) && inside;
  products_.erase(products_.begin(), products_.begin() + static_cast<std::ptrdiff_t>(done));
  group_ends_.erase(group_ends_.begin(), group_ends_.begin() + groups);
  for (std::size_t& end : group_ends_) end -= done;
  for (auto one = sums_.begin(); one != sums_.end();) {
    const bool pending = std::any_of(products_.begin(), products_.end(),
                                     [&](const auto& product) { return product.d == one->first; });
    if (!pending) std::copy(one->second.begin(), one->second.end(), one->first);
    one = pending ? std::next(one) : sums_.erase(one);
  }
  return inside;
}

/// Thread t of the warpgroup has rows 16 (t / 32) + t % 32 / 4 and 8 further on, of every 8 columns
/// those 2 (t % 4) and the next. Products of a sum are added with k ascending: one of the orders
/// that hardware may use.
bool WarpgroupProducts::multiply(const WarpgroupProduct& product, unsigned thread,
                                 const AsyncProxy& proxy) {
  const Operand a(product.a), b(product.b);
  const int lane = static_cast<int>(thread % 32), row = static_cast<int>(thread % 128 / 32) * 16;
  bool inside = true;
  std::array<std::array<float, kDepth>, 2> rows;
  for (int side = 0; side < 2; ++side)
    for (int k = 0; k < kDepth; ++k)
      rows[static_cast<std::size_t>(side)][static_cast<std::size_t>(k)] = from_bfloat16(
          proxy.element(a.address(row + lane / 4 + side * 8, k, product.a_is_m_major), inside));
  std::vector<float>& sums = sums_[product.d];
  for (int column = 0; column < product.columns / 4; ++column) {
    const int n = column / 2 * 8 + lane % 4 * 2 + column % 2;
    std::array<float, kDepth> elements;
    for (int k = 0; k < kDepth; ++k)
      elements[static_cast<std::size_t>(k)] =
          from_bfloat16(proxy.element(b.address(n, k, product.b_is_n_major), inside));
    for (int side = 0; side < 2; ++side) {
      float& sum = sums[static_cast<std::size_t>(column / 2 * 4 + side * 2 + column % 2)];
      for (std::size_t k = 0; k < kDepth; ++k)
        sum += rows[static_cast<std::size_t>(side)][k] * elements[k];
    }
  }
  return inside;
}

}  // namespace sfumato::emulation
