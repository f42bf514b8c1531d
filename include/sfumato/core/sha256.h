#pragma once
#include <array>
#include <span>
#include <string>
#include <string_view>

namespace sfumato {

/// SHA-256 (FIPS 180-4) by OpenSSL.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void update(const void* data, std::size_t size);
  void update(std::string_view text) { update(text.data(), text.size()); }
  /// Ends the hash; call once.
  std::array<unsigned char, 32> finish();

 private:
  void* context_;
};

/// Whether it reads as sha256_hex() writes.
bool is_sha256(std::string_view text);

/// Lower-case hexadecimal SHA-256 of `bytes`.
std::string sha256_hex(std::string_view bytes);

/// The SHA-256 of a text as a number in [0, 1), of its first 53 bits: a draw that anybody repeats.
double sha256_fraction(std::string_view text);

/// Lower-case hexadecimal HMAC-SHA-256 (RFC 2104).
std::string hmac_sha256_hex(std::string_view key, std::string_view message);

}  // namespace sfumato
