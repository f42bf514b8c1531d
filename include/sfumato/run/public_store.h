#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace sfumato {

class RecordStore;

/// A privacy card that lay by the images, or in their archive, when a record store was prepared: a
/// network drew them.
struct SourceCard {
  std::string file;
  /// Null: it could not be read, was missing from a corpus of ours, or an older version did not
  /// look.
  nlohmann::ordered_json card;
};
/// Of all of them, by the manifest. DataError for what is no card, or one of a newer version.
std::vector<SourceCard> source_cards(const RecordStore& store);

/// Why the images of a record store are not public, for a sentence: it holds a part of a private
/// set or images that were held out of one, or those of a network by a card that is VOID, NOT
/// PRIVATE or unreadable (where a card says only that its network had none, that its images are
/// public is somebody's word; what a private card counts is for whoever takes them to declare); a
/// run, or a sweep, took it as private images, or a copy or part of it that lies beside it. ""
/// where nothing that stores remember speaks against it: that it is public remains somebody's word,
/// and images of a network that were prepared away from the card and lineage of their corpus are
/// not known. DataError for notes that are damaged.
std::string why_not_public(const RecordStore& store);

/// Why `store` cannot be public where `private_store` is private: it is the same one or a copy,
/// holds the same images, is a part of it or of the same set, or the whole of it, wherever they
/// lie; was prepared from the same source, or one inside the other; or shares records with it
/// (related_stores). "" where nothing is known.
/// Records of both are not compared: what came of that would tell of the private ones.
std::string why_shared(const RecordStore& store, const RecordStore& private_store);

/// PrivacyError that names `setting`, which says that `store` is public, where one of the two above
/// speaks against it.
void require_public_beside(const RecordStore& store, const RecordStore& private_store,
                           const std::string& setting);

}  // namespace sfumato
