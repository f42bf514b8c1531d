#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "sfumato/core/error.h"
#include "sfumato/data/record_store.h"
#include "sfumato/evaluate/evaluation.h"
#include "sfumato/run/public_store.h"

namespace sfumato {
namespace {

/// "" for what is no text: a card without a claim has null there.
template <class Json>
std::string text_in(const Json& json, const char* member) {
  const auto at = json.is_object() ? json.find(member) : json.end();
  return at != json.end() && at->is_string() ? at->template get<std::string>() : std::string();
}

}  // namespace

void require_may_be_public(const ImageSet& corpus, const ImageSet& reference) {
  if (!reference.store) return;
  std::string why = why_not_public(*reference.store);
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
