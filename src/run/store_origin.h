#pragma once
#include <filesystem>
#include <string>

namespace sfumato {

/// What a manifest says of where the records of a set come from; "" for what it does not say.
struct StoreOrigin {
  std::string hash;      ///< of the manifest
  std::string split_of;  ///< of a part: the hash of the whole
  std::string pixels;    ///< SHA-256 of all of them
  std::string source;    ///< the folder or file that was prepared
};

/// Empty for a folder that is no record store.
StoreOrigin origin_of(const std::filesystem::path& folder);

/// Why two sets have images in common, for a sentence about the first; "" where nothing says so.
std::string why_same(const StoreOrigin& a, const StoreOrigin& b);

}  // namespace sfumato
