#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "sfumato/features/labelled_images.h"

namespace sfumato {

class RecordStore;

/// A set of images that takes part in an evaluation, and what is to be said of it.
struct ImageSet {
  std::string name;       ///< the last part of its path
  LabelledImages images;  ///< those that are used
  int64_t found = 0;      ///< images that it holds; more than are used where a number was given
  std::string identity;   ///< a store's manifest hash; else SHA-256 of pixels and labels used
  std::string split;      ///< "test", ...: what the user or the path says, or "not said"
  bool rounded = false;   ///< floats that came to 8 bits
  bool classes_are_counted = false;  ///< numbers that were seen: there may be more
  /// privacy_card.json of a corpus; one without a claim where there is
  /// none.
  nlohmann::ordered_json card;
  std::shared_ptr<const RecordStore> store;  ///< whose memory the images may lie in; or null
};

struct SetRequest {
  std::filesystem::path path;
  std::filesystem::path labels;  ///< of IDX or .npy images
  std::string split;             ///< as the user says; empty: by the path
  /// Whose images they are, in the words of messages: "corpus", "reference", "test".
  std::string option = "reference";
  bool with_classes = true;
  int64_t count = 0;  ///< images used, chosen at random with the seed; 0: all
  uint64_t seed = 0;
};

/// Both sets, with labels that mean the same on both sides: positions in the names of the reference
/// where it is a record store, else in those of the corpus, else of the reference, else numbers.
/// Images of a record store stay in the file; others take their bytes of memory.
///
/// DataError: a set that cannot be read, has fewer images than its lineage says (a shard or
/// pictures are missing) or images of several sizes; fewer than two images. UsageError: the sets
/// differ in size, channels or classes.
struct ImageSets {
  ImageSet corpus, reference;
};
ImageSets open_image_sets(const SetRequest& corpus, const SetRequest& reference);
/// One more set beside a reference that was opened: real test images.
ImageSet open_test_set(const SetRequest& request, const ImageSet& reference);

}  // namespace sfumato
