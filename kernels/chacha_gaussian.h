#pragma once
#include <cstdint>

namespace sfumato {

/// A 256-bit ChaCha20 key as the eight little-endian words of RFC 8439 section 2.3.
/// The destructor overwrites it; it cannot be copied, so that no forgotten copy outlives it.
struct ChaChaKey {
  std::uint32_t words[8] = {};
  ChaChaKey() = default;
  ChaChaKey(const ChaChaKey&) = delete;
  ChaChaKey& operator=(const ChaChaKey&) = delete;
  ~ChaChaKey() { wipe(); }
  void wipe();
};

/// The 96-bit nonce, words 13..15 of the state. A (key, nonce) pair names one stream and must be
/// used for one purpose only: sfumato::make_nonce in sfumato/privacy/secure_random.h builds it.
struct ChaChaNonce {
  std::uint32_t stream = 0;
  std::uint32_t step = 0;
  std::uint32_t tensor = 0;
};

/// Where element i of a Gaussian stream comes from. A group is 32 consecutive ChaCha20 blocks (one
/// per lane of a warp); each block's 16 words give 5 Box-Muller pairs (word 15 is unused):
///   group = i / 320, slot = (i % 320) / 32, lane = i % 32
///   block counter = 32 group + lane,  pair = slot / 2,  cosine if slot is even, else sine
/// so that neighbouring lanes write neighbouring floats, on the CPU and on the GPU.
inline constexpr std::int64_t kChaChaLanes = 32;
inline constexpr std::int64_t kNormalsPerBlock = 10;
inline constexpr std::int64_t kNormalsPerGroup = kChaChaLanes * kNormalsPerBlock;
/// The block counter has 32 bits: a stream has at most this many normals, or 64-bit words.
inline constexpr std::int64_t kMaxNormalsPerStream = kNormalsPerBlock << 32;
inline constexpr std::int64_t kMaxWords64PerStream = std::int64_t{8} << 32;

/// Gaussian noise from ChaCha20: out[i - begin] = N_i for i in [begin, end), with N_i ~ N(0, s^2),
/// s = stddev rounded up to a float (never less noise than asked for).
///
/// N_i = s sqrt(-2 ln u) {cos, sin}(2 pi v): u = (w + 1/2) 2^-64 of a 64-bit word, so the tail goes
/// to 9.4 sigma; v = (a + 1/2) 2^-32 (angle measured from -pi/4) of a 32-bit word; three words make
/// two normals. N_i depends on key, nonce, s and i alone: any split of a range into calls, threads,
/// SIMD widths or launch geometries gives the same bits, and so does the GPU, because only IEEE
/// additions, multiplications and square roots are used, never a fused multiply-add. At most 6
/// units in the last place from the exact value of the formula. No branch, memory address or
/// instruction count depends on key or noise.
///
/// float32 `out`; 0 <= begin <= end <= kMaxNormalsPerStream; stddev finite, >= 0 and <= 1e30.
/// Per normal: 4 bytes written (8 more read and written by `add`), 96 integer operations for
/// 1.6 words of ChaCha20 and about 35 floating-point operations. The caller splits over threads.
void chacha_gaussian_cpu(float* out, std::int64_t begin, std::int64_t end, const ChaChaKey& key,
                         ChaChaNonce nonce, double stddev);

/// The same, added: out[i - begin] += N_i. Sum and noise in one pass over memory.
void chacha_gaussian_add_cpu(float* out, std::int64_t begin, std::int64_t end, const ChaChaKey& key,
                             ChaChaNonce nonce, double stddev);

/// Blocks [first_block, first_block + count) of the key stream in the order of RFC 8439: 16 words a
/// block. `first_block + count` <= 2^32. 4 bytes written and 60 integer operations per word.
void chacha20_words_cpu(std::uint32_t* out, std::int64_t first_block, std::int64_t count,
                        const ChaChaKey& key, ChaChaNonce nonce);

/// Instruction sets the twin is compiled for; the best one the processor has is used.
enum class ChaChaSimd { kPortable, kAvx2, kAvx512 };
ChaChaSimd best_chacha_simd();
/// For tests and benchmarks: like the two functions above with the instruction set named, which
/// must not be better than best_chacha_simd(). All give the same bits.
void chacha_gaussian_cpu_with(ChaChaSimd simd, float* out, std::int64_t begin, std::int64_t end,
                              const ChaChaKey& key, ChaChaNonce nonce, double stddev, bool add);
void chacha20_words_cpu_with(ChaChaSimd simd, std::uint32_t* out, std::int64_t first_block,
                             std::int64_t count, const ChaChaKey& key, ChaChaNonce nonce);

/// CUDA: the same numbers, bit for bit, in device memory. One thread per ChaCha20 block, one warp
/// per group of 320 normals; writes are whole 128-byte lines. `add`: out[i - begin] += N_i.
/// `stream` is a cudaStream_t; returns a cudaError_t (0 is success). The key travels as a kernel
/// argument: the host's copy is wiped, the driver's argument buffer is beyond reach.
int launch_chacha_gaussian(float* out, std::int64_t begin, std::int64_t end, const ChaChaKey& key,
                           ChaChaNonce nonce, double stddev, bool add, void* stream);

}  // namespace sfumato
