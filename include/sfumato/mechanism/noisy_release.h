#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace sfumato {

/// What the stages that are made after the release have in common: how noisy, of which private
/// images, and beside which corpus. All of it may be seen: it follows from settings or from what
/// the run released before.
struct NoisyRelease {
  double noise_stddev = 0;      ///< of each number that was released
  double expected_records = 0;  ///< the divisor, a public literal
  std::string tested_on;        ///< "training images" or "held-out images", private ones
  std::string reference;        ///< RecordStore::manifest_hash() of the store of these
  std::string corpus;           ///< SHA-256 of the pixels and labels that it was measured beside
  std::string weights_sha256;   ///< of the network that drew the corpus
  std::int64_t corpus_images = 0;
  bool operator==(const NoisyRelease&) const = default;
};

/// The first keys of the file that such a stage leaves in release/.
nlohmann::ordered_json release_json(const NoisyRelease& release, int schema_version);

/// The inverse: reads these keys, then what is the stage's own by `read`, which may throw
/// exceptions of JSON. DataError, which names the file and says that it holds no `what`, where it
/// is no such file or has no noise or divisor.
void read_release(const std::filesystem::path& file, int schema_version, const std::string& what,
                  NoisyRelease& out, const std::function<void(const nlohmann::json&)>& read);

}  // namespace sfumato
