#include "sfumato/run/public_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "run/store_origin.h"
#include "sfumato/core/error.h"
#include "sfumato/data/holdout.h"
#include "sfumato/data/record_store.h"
#include "sfumato/data/store_manifest.h"
#include "sfumato/report/privacy_card.h"
#include "sfumato/run/store_notes.h"
#include "sfumato/run/witness.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

/// Null for one that could not be read when images were prepared. DataError for what is no card.
nlohmann::ordered_json card_in(const nlohmann::json& note) {
  const auto text = note.is_object() ? note.find("text") : note.end();
  if (text == note.end() || !text->is_string()) return nullptr;
  return parse_privacy_card(text->get<std::string>(), note.value("file", ""));
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

/// Why the card of images that a network drew keeps them from being public by itself.
std::string why_not_by_card(const SourceCard& card) {
  const std::string began = fmt::format("it was prepared from images of which '{}'", card.file);
  if (card.card.is_null())
    return began +
           " speaks, which is missing or cannot be read: what they show of private images is not "
           "known";
  if (card.card["status"] == "not_private")
    return began +
           " says that they are of a network trained without privacy: they may show what it "
           "learned; take the images themselves that it was trained on, if those are public";
  if (card.card["status"] == "void" && !says_no_card(card.card))
    return began + " is VOID: what they show of private images is not known";
  return {};
}

}  // namespace

std::vector<SourceCard> source_cards(const RecordStore& store) {
  const nlohmann::json preparation = store_preparation(store.path());
  std::vector<SourceCard> cards;
  if (!preparation.is_object()) return cards;
  const nlohmann::json notes = preparation.value("cards", nlohmann::json());
  for (const nlohmann::json& note : notes)
    cards.push_back({note.is_object() ? note.value("file", "?") : "?", card_in(note)});
  // Older versions noted none.
  if (!notes.is_array() && preparation.value("format", nlohmann::json()) == "corpus")
    cards.push_back({preparation.value("source", "?"), nullptr});
  return cards;
}

std::string why_not_public(const RecordStore& store) {
  if (is_holdout(store)) return "it holds images that were held out of a private set";
  if (!origin_of(store.path()).split_of.empty())
    return "it is a part of a private set, which a sweep split";
  for (const SourceCard& card : source_cards(store))
    if (std::string why = why_not_by_card(card); !why.empty()) return why;
  const std::string use = private_use_of(store.path());
  return use.empty() ? private_use_beside(store.path(), store.manifest_hash()) : use;
}

std::string why_shared(const RecordStore& store, const RecordStore& private_store) {
  std::error_code ignored;
  if (store.manifest_hash() == private_store.manifest_hash() ||
      fs::equivalent(store.path(), private_store.path(), ignored))
    return "it is the private images' own";
  for (const fs::path& related : related_stores(private_store.path()))
    if (fs::equivalent(store.path(), related, ignored) ||
        origin_of(related).hash == store.manifest_hash())
      return fmt::format("it may share images with the private one, as '{}'", related.string());
  return why_same(origin_of(store.path()), origin_of(private_store.path()));
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
