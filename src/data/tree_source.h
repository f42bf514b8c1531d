#pragma once
#include <memory>

#include "image_source.h"
#include "member_walk.h"

namespace sfumato {

/// How a tree of files is held.
struct TreeTraits {
  SourcePass pass = SourcePass::kImages;
  bool quick_to_list = false;   ///< going through the names alone reads no content
  bool labels_in_json = false;  ///< the class may be in KEY.json beside KEY.png
};

/// Images of a folder or an archive, and their classes, from the first of these that is there:
/// files `KEY.cls` (or, where traits allow, `KEY.json` with the label) beside `KEY.png`; the column
/// options.label_column of metadata.csv or metadata.jsonl; the top-level folders.
/// DataError: several splits at the top, images without a class, and what these readers say.
std::unique_ptr<ImageSource> make_tree_source(const PrepareOptions& options, WalkFactory walks,
                                              const TreeTraits& traits);

}  // namespace sfumato
