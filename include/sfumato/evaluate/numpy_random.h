#pragma once
#include <cstdint>
#include <random>
#include <vector>

namespace sfumato {

/// numpy.random.RandomState(seed), as far as evaluations use it: the subsets and orders that other
/// programs draw, so that numbers can be compared to their last digits. Not for secrets.
class NumpyRandom {
 public:
  explicit NumpyRandom(uint32_t seed) : words_(seed) {}
  /// permutation(n), n < 2^32: Fisher and Yates from the end, bounded draws by masks.
  std::vector<int64_t> permutation(int64_t n);
  /// choice(n, size, replace=False).
  std::vector<int64_t> choice(int64_t n, int64_t size);

 private:
  std::mt19937 words_;
};

/// The seed of torch-fidelity's subsets.
inline constexpr uint32_t kFidelitySeed = 2020;

}  // namespace sfumato
