#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "sfumato/core/error.h"
#include "sfumato/data/holdout.h"
#include "sfumato/data/record_store.h"
#include "sfumato/data/store_manifest.h"
#include "sfumato/evaluate/evaluation.h"
#include "sfumato/run/store_notes.h"
#include "sfumato/run/witness.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

/// What a manifest says of the set: its hash, and of a part that of the whole.
struct StoreOrigin {
  std::string hash, split_of;
};

/// "" for what is no text: a card without a claim has null there.
template <class Json>
std::string text_in(const Json& json, const char* member) {
  const auto at = json.is_object() ? json.find(member) : json.end();
  return at != json.end() && at->is_string() ? at->template get<std::string>() : std::string();
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

std::string why_private(const RecordStore& store) {
  if (is_holdout(store)) return "it holds images that were held out of a private set";
  if (!origin_of(store.path()).split_of.empty())
    return "it is a part of a private set, which a sweep split";
  const std::string use = private_use_of(store.path());
  return use.empty() ? private_use_beside(store.path(), store.manifest_hash()) : use;
}

}  // namespace

void require_may_be_public(const ImageSet& corpus, const ImageSet& reference) {
  if (!reference.store) return;
  std::string why = why_private(*reference.store);
  const auto& card = corpus.card;
  if (why.empty() && text_in(card, "status") != "not_private" &&
      text_in(card, "data_manifest_hash") == reference.store->manifest_hash())
    why = "the corpus' network was trained on it as private images";
  if (!why.empty())
    throw PrivacyError(fmt::format(
        "the record store '{}' is not public: {}. Leave out --reference-is-public, and the numbers "
        "stay with its holder",
        reference.name, why));
}

}  // namespace sfumato
