#pragma once
#include <memory>

#include "image_source.h"
#include "member_walk.h"

namespace sfumato {

/// How a tree of files is held.
struct TreeTraits {
  SourcePass pass = SourcePass::kImages;
  bool quick_to_list = false;  ///< going through the names alone reads no content
  /// The class may be in KEY.json beside KEY.png, also where the images lie in folders.
  bool labels_in_json = false;
};

/// Images of a folder or an archive, and their classes, from the first of these that is there:
/// files `KEY.cls` (or `KEY.json` with the label, where traits allow or no image lies in a folder)
/// beside `KEY.png`; the column options.label_column of metadata.csv or metadata.jsonl; the
/// top-level folders. A column other than the default is looked for in tables and JSON alone.
/// DataError: several splits, images without a class, and what these readers say.
std::unique_ptr<ImageSource> make_tree_source(const PrepareOptions& options, WalkFactory walks,
                                              const TreeTraits& traits);

}  // namespace sfumato
