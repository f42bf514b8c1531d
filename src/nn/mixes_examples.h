#pragma once
#include <string>

#include "sfumato/nn/tape.h"

namespace sfumato {

/// PrivacyError under a tape, which names `parameter` unless it is empty: statistics of a batch
/// depend on all of its examples.
void refuse_batch_norm(const Tape* tape, const std::string& parameter);

}  // namespace sfumato
