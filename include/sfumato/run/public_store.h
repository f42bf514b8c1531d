#pragma once
#include <filesystem>
#include <string>

namespace sfumato {

class RecordStore;

/// Why the images of a record store are not public, for a sentence: it holds a part of a private
/// set or images that were held out of one; a run, or a sweep, took it as private images, or a copy
/// or part of it that lies beside it. "" where nothing that stores remember speaks against it:
/// that it is public remains somebody's word. DataError for notes that are damaged.
std::string why_not_public(const RecordStore& store);

/// Why `store` cannot be public where `private_store` is private: it is the same one or a copy,
/// holds the same images, or shares records with it (related_stores). "" where nothing is known.
/// Records of both are not compared: what came of that would tell of the private ones.
std::string why_shared(const RecordStore& store, const RecordStore& private_store);

/// PrivacyError that names `setting`, which says that `store` is public, where one of the two above
/// speaks against it.
void require_public_beside(const RecordStore& store, const RecordStore& private_store,
                           const std::string& setting);

}  // namespace sfumato
