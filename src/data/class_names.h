#pragma once
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "class_numbers.h"
#include "image_source.h"
#include "sfumato/data/prepare.h"

namespace sfumato {

/// The classes of a store, decided before the first image is read: from the configuration, never
/// from which images there are.
struct ClassPlan {
  std::vector<std::string> names;  ///< label by label; empty: unconditional
  std::string from;                ///< as StoreLayout::class_names_from
  std::vector<bool> may_be_empty;  ///< as long as names: the setting allows it, or a public list
  std::vector<bool> absent;        ///< as long as names: the source names classes, but not this one
  std::vector<std::string> empty;  ///< as StoreLayout::classes_that_may_be_empty
  std::unordered_map<std::string, std::size_t> label_of_name;
  ClassNumbers numbers;  ///< what numbers mean, by the names of the configuration
};

/// The names found, in the order that is proposed as that of the labels: by value where all are
/// numbers, else by bytes.
std::vector<std::string> proposed_order(const ClassesFound& found);

/// UsageError: the source names its classes and nobody has said which
/// names are public (the message shows the line to add); numbers and names that contradict each
/// other, or a file of the data set; names that no class can have. DataError: the source has a
/// class that is not in the list, or one whose name is not UTF-8.
ClassPlan plan_classes(const PrepareOptions& options, const ClassesFound& found);

/// The label of an image. DataError, which names the image, for a class that is not in the plan.
std::int32_t label_of(const SourceItem& item, const ClassPlan& plan);

/// The message that `where` has a class that is none of `known`.
std::string unknown_class(const std::string& where, const std::string& name,
                          const std::vector<std::string>& known);

/// DataError for classes of which `records` counts none, unless they may be empty; a warning for
/// those that the source does not have at all. `skipped` says what else was seen, `source` which
/// files of a class it passed over.
void check_no_class_is_empty(const ClassPlan& plan, const std::vector<std::int64_t>& records,
                             const ImageSource& source, const std::string& skipped);

}  // namespace sfumato
