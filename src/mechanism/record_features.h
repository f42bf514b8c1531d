#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>

#include "sfumato/config/settings_tree.h"
#include "sfumato/data/record_store.h"
#include "sfumato/features/feature_network.h"

namespace sfumato {

/// Takes what `network` says of a record's image.
using FeatureVisitor = std::function<void(std::int64_t record, std::span<const float> features)>;

/// All records of `store`, in their order. Each image goes through the network alone, so that its
/// features follow from its own bytes, whatever else is in the store: on one thread each, however
/// many images there are. Interrupted, which says
/// `stopped`, if a stop signal came.
void visit_record_features(const RecordStore& store, const FeatureNetwork& network,
                           const std::string& stopped, const FeatureVisitor& visit);

/// For a stage that is done: UsageError unless the features that settings ask for are those that
/// its `file` was made by.
void check_same_features(const Setting<std::string>& asked, const std::string& made,
                         const std::filesystem::path& file);

}  // namespace sfumato
