#pragma once
#include <initializer_list>
#include <vector>

/// Marks a function that is compiled for three levels of x86-64 (AVX-512, AVX2, every machine), of
/// which the loader takes the best that the machine has.
#define SFUMATO_EVERY_X86_64 \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))

/// The same of a function that is written for each level, since its work is cut to its registers:
/// 32 of 64 bytes, 16 of 32, 16 of 16. Compilers lower a vector that is wider than the machine's to
/// scalars in memory, many times slower.
#define SFUMATO_X86_64_V4 __attribute__((target("arch=x86-64-v4")))
#define SFUMATO_X86_64_V3 __attribute__((target("arch=x86-64-v3")))

namespace sfumato {

enum class X86Level { kEvery, kV3, kV4 };

/// The best that this machine has.
inline X86Level x86_level() {
  static const X86Level best = __builtin_cpu_supports("x86-64-v4")   ? X86Level::kV4
                               : __builtin_cpu_supports("x86-64-v3") ? X86Level::kV3
                                                                     : X86Level::kEvery;
  return best;
}

/// All that this machine has: for tests, whose results are those of every level.
inline std::vector<X86Level> x86_levels() {
  std::vector<X86Level> levels;
  for (const X86Level level : {X86Level::kEvery, X86Level::kV3, X86Level::kV4})
    if (level <= x86_level()) levels.push_back(level);
  return levels;
}

/// Of a function that is written for each level, the one for `level`.
template <typename Function>
Function for_level(X86Level level, Function v4, Function v3, Function every) {
  return level == X86Level::kV4 ? v4 : level == X86Level::kV3 ? v3 : every;
}

}  // namespace sfumato
