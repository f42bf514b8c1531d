#pragma once
#include "sfumato/corpus/sampling_model.h"

namespace sfumato {

/// Fills names and what is known of untrained classes, for the num_classes that `model` has: from
/// data.class_names where set, else from the card, else numbers. UsageError: names for another
/// number of classes, or other names than the card's. DataError: names on a card that are none.
void name_classes(const Config& config, SamplingModel& model);

}  // namespace sfumato
