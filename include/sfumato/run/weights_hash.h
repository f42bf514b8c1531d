#pragma once
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace sfumato {

/// SHA-256 of the safetensors file that find_weights takes in a model folder (the one that holds
/// config.json), which ties a privacy card to its weights; of shards, the SHA-256 of their hashes
/// in the order of their names. DataError if there is none.
std::string weights_sha256(const std::filesystem::path& folder);

/// What a ledger notes of the weights that a run started from: the hash of its one network or, of
/// several, that of their hashes, one after the other.
std::string start_sha256(std::span<const std::string> networks);
/// The same of a folder that model.init names. `folders`: of the networks in it, as the ledger
/// notes them (InitialWeights::folders); empty for a ledger of a version that did not. DataError as
/// above.
std::string start_sha256(const std::filesystem::path& init,
                         const std::vector<std::string>& folders);
/// `networks` relative to `init`, "." for itself; empty where one does not lie in it.
std::vector<std::string> start_folders(const std::filesystem::path& init,
                                       std::span<const std::filesystem::path> networks);

}  // namespace sfumato
