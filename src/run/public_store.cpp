#include "sfumato/run/public_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "sfumato/core/error.h"
#include "sfumato/data/holdout.h"
#include "sfumato/data/record_store.h"
#include "sfumato/data/store_manifest.h"
#include "sfumato/run/store_notes.h"
#include "sfumato/run/witness.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

/// What a manifest says of the set: its hash, and of a part that of the whole.
struct StoreOrigin {
  std::string hash, split_of;
};

std::string text_in(const nlohmann::json& json, const char* member) {
  const auto at = json.is_object() ? json.find(member) : json.end();
  return at != json.end() && at->is_string() ? at->get<std::string>() : std::string();
}

/// Empty for a folder that is no record store.
StoreOrigin origin_of(const fs::path& folder) {
  try {
    const nlohmann::json manifest = store_manifest(folder);
    if (manifest.is_null()) return {};
    return {text_in(manifest, "manifest_hash"),
            text_in(manifest.value("preparation", nlohmann::json()), "split_of")};
  } catch (const DataError&) {
    return {};  // other programs have manifests too
  }
}

/// Who used a store as private images; "" where nobody did.
std::string private_use_of(const fs::path& store) {
  for (const Witness& witness : read_witnesses(store))
    if (witness.plan.is_private)
      return fmt::format("the run in '{}' trained on it as private images", witness.place);
  for (const SelectionUse& use : read_selections(store))
    return fmt::format("the sweep in '{}' takes it as private images", use.place);
  return {};
}

/// Parts and copies lie beside a store, and remember their own uses.
std::string private_use_beside(const fs::path& store, const std::string& hash) {
  std::error_code ignored;
  for (const fs::directory_entry& entry :
       fs::directory_iterator(fs::canonical(store).parent_path(), ignored)) {
    const StoreOrigin origin = origin_of(entry.path());
    if (origin.hash != hash && origin.split_of != hash) continue;
    if (const std::string use = private_use_of(entry.path()); !use.empty())
      return fmt::format("of '{}', which has the same images, {}", entry.path().string(), use);
  }
  return {};
}

/// SHA-256 of all pixels, by the manifest of an open store.
std::string pixels_sha256(const RecordStore& store) {
  const nlohmann::json manifest = store_manifest(store.path());
  return text_in(manifest.value("files", nlohmann::json()).value("records.bin", nlohmann::json()),
                 "sha256");
}

}  // namespace

std::string why_not_public(const RecordStore& store) {
  if (is_holdout(store)) return "it holds images that were held out of a private set";
  if (!origin_of(store.path()).split_of.empty())
    return "it is a part of a private set, which a sweep split";
  const std::string use = private_use_of(store.path());
  return use.empty() ? private_use_beside(store.path(), store.manifest_hash()) : use;
}

std::string why_shared(const RecordStore& store, const RecordStore& private_store) {
  std::error_code ignored;
  if (store.manifest_hash() == private_store.manifest_hash() ||
      fs::equivalent(store.path(), private_store.path(), ignored))
    return "it is the private images' own";
  if (const std::string pixels = pixels_sha256(store);
      !pixels.empty() && pixels == pixels_sha256(private_store))
    return "it holds the same images as the private one";
  for (const fs::path& related : related_stores(private_store.path()))
    if (fs::equivalent(store.path(), related, ignored) ||
        origin_of(related).hash == store.manifest_hash())
      return fmt::format("it may share images with the private one, as '{}'", related.string());
  return {};
}

void require_public_beside(const RecordStore& store, const RecordStore& private_store,
                           const std::string& setting) {
  std::string why = why_shared(store, private_store);
  if (why.empty()) why = why_not_public(store);
  if (!why.empty())
    throw PrivacyError(
        fmt::format("{}: the record store '{}' is not public: {}. Name a store of public images",
                    setting, store.path().string(), why));
}

}  // namespace sfumato
