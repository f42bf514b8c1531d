#include "sfumato/train/chosen_images.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string>
#include <vector>

#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/features/image_features.h"

namespace sfumato {

WarmUpImages images_of_chosen_classes(const SemanticQuery& query, const RecordStore& store,
                                      std::int64_t kept, std::int64_t steps) {
  if (store.manifest_hash() != query.public_store)
    throw PrivacyError(
        fmt::format("'{}' is not the record store that the private images' votes chose from",
                    store.path().string()));
  std::vector<std::int64_t> records, labels;
  const std::vector<std::vector<std::int64_t>> chosen = query.chosen_classes(kept);
  for (std::size_t label = 0; label < chosen.size(); ++label)
    for (std::int64_t record = 0; record < store.count(); ++record) {
      if (std::ranges::find(chosen[label], store.label(record)) == chosen[label].end()) continue;
      records.push_back(record);
      labels.push_back(static_cast<std::int64_t>(label));
    }
  WarmUpImages images;
  images.images = store_images(store, records).permute({0, 3, 1, 2}).contiguous();
  images.labels = at::empty({std::ssize(labels)}, at::kLong);
  std::ranges::copy(labels, images.labels.mutable_data_ptr<std::int64_t>());
  images.classes = std::ssize(chosen);
  images.steps = steps;
  images.name = kChosenImagesName;
  return images;
}

WarmUpImages images_of_semantic_query(const Config& config, const SemanticQuery& query) {
  const SemanticWarmupSettings& settings = config.semantic_warmup;
  const RecordStore store = RecordStore::open(config.semantic_query.public_store());
  WarmUpImages images =
      images_of_chosen_classes(query, store, settings.classes_kept(), settings.steps());
  const auto chosen = query.chosen_classes(settings.classes_kept());
  for (std::size_t label = 0; label < chosen.size(); ++label) {
    std::vector<std::string> names;
    for (const std::int64_t c : chosen[label])
      names.push_back(store.class_names()[static_cast<std::size_t>(c)]);
    log_info(
        fmt::format("warm-up: class {} on the public classes {}", label, fmt::join(names, ", ")));
  }
  return images;
}

}  // namespace sfumato
