#pragma once
#include <cstdint>
#include <span>

#include "sfumato/data/record_store.h"
#include "sfumato/generate/objective.h"

namespace sfumato {

/// Of the images of a store.
ImageShape image_shape(const RecordStore& store);

/// `records` (at most `physical`; UsageError) of a store, padded to a batch of `physical`. Pixels
/// stay in the store. A record's key is a hash of its content, not its place in the store or in the
/// batch: the presence of other records changes nothing in its gradient.
ExampleBatch load_examples(const RecordStore& store, std::span<const int64_t> records,
                           int64_t physical);

}  // namespace sfumato
