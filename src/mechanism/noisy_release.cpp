#include "sfumato/mechanism/noisy_release.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "sfumato/core/error.h"
#include "sfumato/io/json_file.h"

namespace sfumato {

nlohmann::ordered_json release_json(const NoisyRelease& release, int schema_version) {
  return {{"schema_version", schema_version},
          {"noise_stddev", release.noise_stddev},
          {"expected_records", release.expected_records},
          {"tested_on", release.tested_on},
          {"reference", release.reference},
          {"corpus", release.corpus},
          {"corpus_images", release.corpus_images},
          {"weights_sha256", release.weights_sha256}};
}

void read_release(const std::filesystem::path& file, int schema_version, const std::string& what,
                  NoisyRelease& out, const std::function<void(const nlohmann::json&)>& read) {
  const nlohmann::json json = read_json(file);
  const auto refuse = [&](const std::string& why) {
    throw DataError(
        fmt::format("'{}' holds no {} that this program released: {}", file.string(), what, why));
  };
  try {
    if (json.at("schema_version") != schema_version) refuse("another version wrote it");
    json.at("noise_stddev").get_to(out.noise_stddev);
    json.at("expected_records").get_to(out.expected_records);
    json.at("tested_on").get_to(out.tested_on);
    json.at("reference").get_to(out.reference);
    json.at("corpus").get_to(out.corpus);
    json.at("corpus_images").get_to(out.corpus_images);
    json.at("weights_sha256").get_to(out.weights_sha256);
    read(json);
  } catch (const nlohmann::json::exception& error) {
    refuse(error.what());
  }
  if (!(out.expected_records > 0) || !(out.noise_stddev > 0))
    refuse("its divisor or noise is missing");
}

}  // namespace sfumato
