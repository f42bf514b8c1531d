#include "sfumato/evaluate/numpy_random.h"

#include <bit>
#include <numeric>
#include <utility>

namespace sfumato {

std::vector<int64_t> NumpyRandom::permutation(int64_t n) {
  std::vector<int64_t> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), int64_t{0});
  for (auto last = static_cast<uint32_t>(n > 0 ? n - 1 : 0); last > 0; --last) {
    const uint32_t mask = ~uint32_t{0} >> std::countl_zero(last);
    uint32_t drawn = 0;
    do drawn = static_cast<uint32_t>(words_()) & mask;
    while (drawn > last);
    std::swap(order[last], order[drawn]);
  }
  return order;
}

std::vector<int64_t> NumpyRandom::choice(int64_t n, int64_t size) {
  std::vector<int64_t> order = permutation(n);
  order.resize(static_cast<std::size_t>(size));
  return order;
}

}  // namespace sfumato
