#pragma once
#include "sfumato/config/config.h"
#include "sfumato/mechanism/semantic_query.h"
#include "sfumato/train/warm_up.h"

namespace sfumato {

inline constexpr const char* kChosenImagesName = "chosen public images";

/// The images of `store` whose classes a semantic query chose, `kept` for each private class, which
/// is the label that they get: uint8, as they lie in the store, the private classes' one after the
/// other. An image whose class several private ones chose is there once for each. PrivacyError if
/// `store` is not the one that was asked about.
WarmUpImages images_of_chosen_classes(const SemanticQuery& query, const RecordStore& store,
                                      std::int64_t kept, std::int64_t steps);

/// The same of the settings mechanism.stages.semantic_query and warmup.semantic; the log says which
/// classes they are, which anybody may know.
WarmUpImages images_of_semantic_query(const Config& config, const SemanticQuery& query);

}  // namespace sfumato
