// Secure Gaussian noise per second, with one thread and with more, for every instruction set of
// this processor. Compare: torch.empty(10_000_000).normal_().
//   g++ -std=c++20 -O3 -fno-math-errno -I. -o noise_bench tests/compare/noise_bench.cpp
//       kernels/chacha_gaussian_cpu.cpp -lpthread && ./noise_bench [max_threads]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "kernels/chacha_gaussian.h"

namespace {

using sfumato::ChaChaSimd;
constexpr std::int64_t kCount = 10'000'000;

/// Best of seven, in seconds.
template <class Work>
double best_time(Work work) {
  double best = 1e9;
  for (int repeat = 0; repeat < 7; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
    best = std::min(best, spent.count());
  }
  return best;
}

void fill(ChaChaSimd simd, std::vector<float>& out, int threads, bool add) {
  const sfumato::ChaChaKey key;
  const auto work = [&](int part) {
    const std::int64_t begin = kCount * part / threads, end = kCount * (part + 1) / threads;
    sfumato::chacha_gaussian_cpu_with(simd, out.data() + begin, begin, end, key, {1, 2, 3}, 1.0,
                                      add);
  };
  std::vector<std::thread> pool;
  for (int part = 1; part < threads; ++part) pool.emplace_back(work, part);
  work(0);
  for (std::thread& thread : pool) thread.join();
}

}  // namespace

int main(int argc, char** argv) {
  const int max_threads = argc > 1 ? std::atoi(argv[1]) : 2;
  const char* names[] = {"portable", "avx2", "avx512"};
  std::vector<float> out(kCount);
  for (int level = 0; level <= static_cast<int>(sfumato::best_chacha_simd()); ++level)
    for (int threads = 1; threads <= max_threads; threads *= 2)
      for (const bool add : {false, true}) {
        const double s =
            best_time([&] { fill(static_cast<ChaChaSimd>(level), out, threads, add); });
        std::printf("%-8s %d thread(s) %s  %7.2f ms  %6.0f M normals/s\n", names[level], threads,
                    add ? "add " : "fill", s * 1e3, static_cast<double>(kCount) / s * 1e-6);
      }
  return 0;
}
