#pragma once
#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "kernels/chacha_gaussian.h"

namespace sfumato {

/// What a ChaCha20 stream is for. The value is the first word of the nonce, so that no two uses of
/// one key ever share a stream. Never renumber.
enum class StreamDomain : std::uint32_t {
  kNoise = 1,          ///< Gaussian noise on a clipped sum; id = index of the tensor
  kPoisson = 2,        ///< which records join a step
  kSideStatistic = 3,  ///< noise on anything else that is released, such as a label histogram
  kStagePoisson = 4,   ///< which records join a release of a stage; id = its place in the plan
};

/// The 256-bit key of one session (one process's work on one run), from the operating system.
/// It is never written anywhere; its memory is overwritten when it ends. Streams keep a reference
/// to it, so it must neither move nor end before them.
class SecureKey {
 public:
  /// From getrandom(2). DeviceError if the system cannot; there is no other source.
  static SecureKey generate();
  /// A reproducible key for tests. Noise from it protects nobody: insecure() is true, the ledger
  /// says so and the privacy card is void.
  static SecureKey insecure_for_tests(std::uint64_t seed);

  ~SecureKey() = default;
  SecureKey(SecureKey&& other) noexcept;
  SecureKey& operator=(SecureKey&& other) noexcept;
  SecureKey(const SecureKey&) = delete;
  SecureKey& operator=(const SecureKey&) = delete;

  bool insecure() const { return insecure_; }
  /// The first 16 hexadecimal digits of SHA-256(key): names the key without revealing it.
  const std::string& id() const { return id_; }
  /// PrivacyError in a forked child (parent and child would draw the same noise) and after a move.
  const ChaChaKey& chacha_key() const;

 private:
  friend class SamplingKey;
  SecureKey() = default;
  void take(SecureKey& other) noexcept;
  void set_id();

  ChaChaKey key_;
  std::string id_;
  pid_t process_ = -1;
  bool insecure_ = false;
};

/// The key of the Poisson samples alone, where several processes draw the same ones: unlike the key
/// of the noise it is handed to them, so it is another type, of which no noise can be made. Of one
/// session, never written.
class SamplingKey {
 public:
  static constexpr std::size_t kBytes = 32;
  using Bytes = std::array<std::byte, kBytes>;
  /// Of the session with this noise key: from getrandom(2), unrelated to it. Only of a test key,
  /// the same, so that its samples can be told.
  static SamplingKey for_session(const SecureKey& noise_key);
  /// What another process sent; `bytes` are overwritten.
  static SamplingKey received(Bytes& bytes);
  /// To be sent; the caller overwrites them.
  Bytes bytes() const;

 private:
  friend class PoissonSampler;
  explicit SamplingKey(SecureKey key) : key_(std::move(key)) {}
  SecureKey key_;
};

/// The nonce {domain, step, id}. PrivacyError where step or id does not fit 32 bits: a wrapped
/// nonce would repeat noise.
ChaChaNonce make_nonce(StreamDomain domain, std::int64_t step, std::int64_t id = 0);

/// The words of one stream, 64 bits each: word i is bytes 8i ... 8i+7 of the RFC 8439 key stream
/// from block 0, little-endian. `key` must outlive it.
class ChaChaStream {
 public:
  ChaChaStream(const SecureKey& key, StreamDomain domain, std::int64_t step, std::int64_t id = 0);
  ~ChaChaStream();
  ChaChaStream(const ChaChaStream&) = delete;
  ChaChaStream& operator=(const ChaChaStream&) = delete;

  std::uint64_t next();
  /// The next words.size() of them. PrivacyError after 2^35 words and in a forked child.
  void fill(std::span<std::uint64_t> words);

 private:
  static constexpr std::int64_t kBufferBlocks = 16;
  static constexpr std::int64_t kBufferWords = 8 * kBufferBlocks;
  const SecureKey& key_;
  ChaChaNonce nonce_;
  std::int64_t position_ = 0;
  std::uint32_t buffer_[16 * kBufferBlocks] = {};
};

/// 2 * bytes hexadecimal digits from getrandom(2), for names that must not collide. DeviceError.
std::string random_hex(int bytes);

}  // namespace sfumato
