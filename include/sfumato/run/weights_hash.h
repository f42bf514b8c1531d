#pragma once
#include <filesystem>
#include <string>

namespace sfumato {

/// SHA-256 of the safetensors file that find_weights takes in a model folder (the one that holds
/// config.json), which ties a privacy card to its weights; of shards, the SHA-256 of their hashes
/// in the order of their names. DataError if there is none.
std::string weights_sha256(const std::filesystem::path& folder);

/// What a ledger notes of the weights that a run started from: the hash of its one network, or of
/// two hashes, the generator's and the discriminator's, one after the other. `discriminator` may be
/// empty.
std::string start_sha256(const std::string& weights, const std::string& discriminator);
/// The same of a folder that model.init names: DataError as above.
std::string start_sha256(const std::filesystem::path& init);

}  // namespace sfumato
