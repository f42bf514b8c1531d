#include "sfumato/privacy/secure_random.h"

#include <fmt/format.h>
#include <string.h>  // explicit_bzero is not in <cstring>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <utility>
#include <vector>

#include "sfumato/core/error.h"
#include "sfumato/core/sha256.h"
#include "sfumato/core/text.h"

namespace sfumato {
namespace {

void system_random(void* data, std::size_t size) {
  auto* place = static_cast<unsigned char*>(data);
  while (size > 0) {
    const ssize_t n = ::getrandom(place, size, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0)
      throw DeviceError(fmt::format(
          "the operating system gives no random bytes (getrandom: {}); privacy noise has no other "
          "source. Needs Linux 3.17 or newer, and a sandbox that allows getrandom",
          ::strerror(errno)));
    place += n;
    size -= static_cast<std::size_t>(n);
  }
}

}  // namespace

SecureKey SecureKey::generate() {
  SecureKey key;
  system_random(key.key_.words, sizeof key.key_.words);
  key.process_ = ::getpid();
  key.set_id();
  return key;
}

SecureKey SecureKey::insecure_for_tests(std::uint64_t seed) {
  SecureKey key;
  key.insecure_ = true;
  Sha256 hash;
  hash.update(fmt::format("sfumato insecure test key {}", seed));
  const std::array<unsigned char, 32> bytes = hash.finish();
  memcpy(key.key_.words, bytes.data(), bytes.size());
  key.process_ = ::getpid();
  key.set_id();
  return key;
}

void SecureKey::set_id() {
  Sha256 hash;
  hash.update(key_.words, sizeof key_.words);
  std::array<unsigned char, 32> digest = hash.finish();
  id_ = hex(std::span<const unsigned char>(digest).first(8));
}

void SecureKey::take(SecureKey& other) noexcept {
  std::copy(std::begin(other.key_.words), std::end(other.key_.words), key_.words);
  other.key_.wipe();
  id_ = std::exchange(other.id_, {});
  process_ = std::exchange(other.process_, -1);
  insecure_ = other.insecure_;
}

SecureKey::SecureKey(SecureKey&& other) noexcept { take(other); }

SecureKey& SecureKey::operator=(SecureKey&& other) noexcept {
  if (this != &other) take(other);
  return *this;
}

SamplingKey SamplingKey::for_session(const SecureKey& noise_key) {
  if (!noise_key.insecure()) return SamplingKey(SecureKey::generate());
  Bytes bytes;
  memcpy(bytes.data(), noise_key.chacha_key().words, kBytes);
  return received(bytes);
}

SamplingKey SamplingKey::received(Bytes& bytes) {
  SecureKey key;
  memcpy(key.key_.words, bytes.data(), kBytes);
  explicit_bzero(bytes.data(), kBytes);
  key.process_ = ::getpid();
  key.set_id();
  return SamplingKey(std::move(key));
}

SamplingKey::Bytes SamplingKey::bytes() const {
  Bytes bytes;
  memcpy(bytes.data(), key_.chacha_key().words, kBytes);
  return bytes;
}

const ChaChaKey& SecureKey::chacha_key() const {
  if (process_ != ::getpid())
    throw PrivacyError(
        process_ == -1
            ? "a noise key was used after it was moved elsewhere"
            : "a noise key was used in a forked process: parent and child would draw the same "
              "noise; generate the key after forking");
  return key_;
}

ChaChaNonce make_nonce(StreamDomain domain, std::int64_t step, std::int64_t id) {
  constexpr std::int64_t kMax = std::numeric_limits<std::uint32_t>::max();
  if (step < 0 || step > kMax || id < 0 || id > kMax)
    throw PrivacyError(fmt::format(
        "step {} or tensor {} is outside 0 ... {}: the noise would repeat; start a new run", step,
        id, kMax));
  return {static_cast<std::uint32_t>(domain), static_cast<std::uint32_t>(step),
          static_cast<std::uint32_t>(id)};
}

ChaChaStream::ChaChaStream(const SecureKey& key, StreamDomain domain, std::int64_t step,
                           std::int64_t id)
    : key_(key), nonce_(make_nonce(domain, step, id)) {}

ChaChaStream::~ChaChaStream() { explicit_bzero(buffer_, sizeof buffer_); }

std::uint64_t ChaChaStream::next() {
  std::uint64_t word = 0;
  fill({&word, 1});
  return word;
}

void ChaChaStream::fill(std::span<std::uint64_t> words) {
  const ChaChaKey& key = key_.chacha_key();  // checks the process also where the buffer suffices
  if (static_cast<std::int64_t>(words.size()) > kMaxWords64PerStream - position_)
    throw PrivacyError("a random stream is used up (2^35 words); its words would repeat");
  for (std::uint64_t& word : words) {
    const std::int64_t at = position_ % kBufferWords;
    if (at == 0) chacha20_words_cpu(buffer_, position_ / 8, kBufferBlocks, key, nonce_);
    word = buffer_[2 * at] | std::uint64_t{buffer_[2 * at + 1]} << 32;
    ++position_;
  }
}

std::string random_hex(int bytes) {
  std::vector<unsigned char> data(static_cast<std::size_t>(bytes));
  system_random(data.data(), data.size());
  return hex(data);
}

}  // namespace sfumato
