#include "sfumato/audit/replication.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <utility>

#include "sfumato/audit/membership.h"
#include "sfumato/audit/tail_probabilities.h"
#include "sfumato/core/error.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/data/record_store.h"
#include "sfumato/features/corpus_images.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

void check_stop() {
  if (stop_requested()) throw Interrupted("stopped; an audit starts anew when it is called again");
}

NearestRecord summary(const std::vector<Neighbour>& nearest) {
  double sum = 0;
  for (std::size_t i = 1; i < nearest.size(); ++i) sum += nearest[i].distance;
  const double mean = sum / static_cast<double>(nearest.size() - 1);
  const double first = nearest.front().distance;
  return {nearest.front().index, first, first > 0 ? std::min(first / mean, 1.0) : 0.0};
}

/// Calls visit(images) for blocks of the corpus, uint8 [n, H, W, C]; notes the names.
void each_block(const fs::path& corpus, const RecordStore& store, int64_t count, int64_t block,
                std::vector<std::string>& names, const std::function<void(at::Tensor)>& visit) {
  CorpusImages images(corpus, count);
  const int64_t record_bytes = store.height() * store.width() * store.channels();
  at::Tensor held = at::empty({block, store.height(), store.width(), store.channels()}, at::kByte);
  int64_t filled = 0;
  names.clear();
  while (images.next()) {
    const Image image = to_channels(images.image(), store.channels());
    if (image.height != store.height() || image.width != store.width())
      throw UsageError(fmt::format(
          "{} is {}x{} pixels, the store's records are {}x{}; compare a corpus with the store that "
          "its network was trained on",
          images.name(), image.width, image.height, store.width(), store.height()));
    std::memcpy(held.mutable_data_ptr<std::uint8_t>() + filled * record_bytes, image.pixels.data(),
                image.pixels.size());
    names.push_back(images.name());
    if (++filled < block) continue;
    visit(held);
    filled = 0;
  }
  if (filled > 0) visit(held.narrow(0, 0, filled));
  if (names.empty()) throw DataError(fmt::format("the corpus '{}' is empty", corpus.string()));
}

/// For each record among the nearest ones, how far it lies from its own nearest.
std::map<int64_t, double> own_distances(const std::vector<NearestRecord>& a,
                                        const std::vector<NearestRecord>& b,
                                        const RecordStore& store, const ImageFeatures& features) {
  std::map<int64_t, double> distances;
  for (const auto* nearest : {&a, &b})
    for (const NearestRecord& one : *nearest) distances.emplace(one.record, 0);
  std::vector<int64_t> records;
  for (const auto& [record, distance] : distances) records.push_back(record);
  const auto found = nearest_records(store, records, store, features, true);
  for (std::size_t i = 0; i < records.size(); ++i) distances[records[i]] = found[i].distance;
  return distances;
}

Rate authentic_share(const std::vector<NearestRecord>& images,
                     const std::map<int64_t, double>& own) {
  const auto hits = std::ranges::count_if(
      images, [&](const NearestRecord& one) { return one.distance > own.at(one.record); });
  return rate_of(hits, std::ssize(images));
}

std::vector<double> values(const std::vector<NearestRecord>& nearest,
                           double NearestRecord::*member) {
  std::vector<double> out;
  for (const NearestRecord& one : nearest) out.push_back(one.*member);
  return out;
}

std::vector<NearestRecord> null_of(const RecordStore& store, const RecordStore* holdout,
                                   const ImageFeatures& features,
                                   const ReplicationOptions& options) {
  const RecordStore& real = holdout ? *holdout : store;
  const auto records = choose_records(real.count(), options.count, options.seed, "null");
  return nearest_records(real, records, store, features, holdout == nullptr);
}

ReplicationResult examine(FeatureSpace space, const fs::path& corpus, const RecordStore& store,
                          const RecordStore* holdout, const ReplicationOptions& options,
                          std::vector<std::string>& names) {
  const ImageFeatures features(
      space, {.channels = store.channels(), .height = store.height(), .width = store.width()});
  ReplicationResult result;
  result.space = space;
  each_block(corpus, store, options.count, query_block(features.row_bytes()), names,
             [&](const at::Tensor& images) {
               check_stop();
               for (const NearestRecord& one : nearest_records(images, store, features))
                 result.synthetic.push_back(one);
             });
  result.null = null_of(store, holdout, features, options);
  // A real image that is in the store as well says nothing about how near strangers come.
  result.null_in_store =
      std::erase_if(result.null, [](const NearestRecord& one) { return one.distance == 0; });
  if (result.null.empty())
    throw UsageError(
        "every image of the holdout is in the store as well, so nothing can be "
        "compared; name a holdout that the network was not trained on");
  result.by_distance = compare_with_null(values(result.synthetic, &NearestRecord::distance),
                                         values(result.null, &NearestRecord::distance));
  result.by_ratio = compare_with_null(values(result.synthetic, &NearestRecord::ratio),
                                      values(result.null, &NearestRecord::ratio));
  const auto own = own_distances(result.synthetic, result.null, store, features);
  result.authentic = authentic_share(result.synthetic, own);
  result.null_authentic = authentic_share(result.null, own);
  return result;
}

}  // namespace

std::vector<NearestRecord> nearest_records(const at::Tensor& images, const RecordStore& store,
                                           const ImageFeatures& features,
                                           std::span<const int64_t> own) {
  if (store.count() < 3)
    throw UsageError(
        fmt::format("'{}' holds too few records to compare images with", store.path().string()));
  const StoreFeatures references(store, features);
  std::vector<NearestRecord> found;
  for (const auto& nearest :
       nearest_neighbours(features(images), references, 1 + kNextNeighbours, own))
    found.push_back(summary(nearest));
  return found;
}

std::vector<NearestRecord> nearest_records(const RecordStore& images,
                                           std::span<const int64_t> records,
                                           const RecordStore& store, const ImageFeatures& features,
                                           bool of_store) {
  std::vector<NearestRecord> found;
  const auto block = static_cast<std::size_t>(query_block(features.row_bytes()));
  for (std::size_t begin = 0; begin < records.size(); begin += block) {
    check_stop();
    const auto part = records.subspan(begin, std::min(block, records.size() - begin));
    const auto own = of_store ? part : std::span<const int64_t>();
    for (const NearestRecord& one :
         nearest_records(store_images(images, part), store, features, own))
      found.push_back(one);
  }
  return found;
}

NullComparison compare_with_null(std::span<const double> synthetic, std::span<const double> null) {
  NullComparison result;
  const auto m = static_cast<double>(synthetic.size()), n = static_cast<double>(null.size());
  // The chance that a synthetic image is nearer, ties counting half: Mann-Whitney's U over m n.
  const double nearer = auroc(synthetic, null).value;
  std::vector<double> all(synthetic.begin(), synthetic.end());
  all.insert(all.end(), null.begin(), null.end());
  std::sort(all.begin(), all.end());
  double ties = 0;
  for (auto begin = all.begin(); begin != all.end();) {
    const auto end = std::upper_bound(begin, all.end(), *begin);
    const auto size = static_cast<double>(end - begin);
    ties += size * (size * size - 1);
    begin = end;
  }
  const double total = m + n;
  const double variance = (total + 1 - ties / (total * (total - 1))) / (12 * m * n);
  if (variance > 0) {
    result.z = (0.5 - nearer) / std::sqrt(variance);
    result.p_value = normal_cdf(result.z);
  }
  result.threshold = threshold_at(null, kNullShare);
  result.copies = rate_of(
      std::ranges::count_if(synthetic, [&](double value) { return value < result.threshold; }),
      std::ssize(synthetic));
  // The threshold is the (k+1)-th smallest of n: a further one falls below it this often.
  result.expected_share = (std::floor(kNullShare * n * (1 + 1e-12)) + 1) / (n + 1);
  return result;
}

ReplicationAudit audit_replication(const fs::path& corpus, const RecordStore& store,
                                   const RecordStore* holdout, const ReplicationOptions& options) {
  if (holdout && (holdout->height() != store.height() || holdout->width() != store.width() ||
                  holdout->channels() != store.channels()))
    throw UsageError("--store and --holdout hold images of different shapes");
  if (holdout && holdout->manifest_hash() == store.manifest_hash())
    throw UsageError("--store and --holdout are the same store");
  if (options.spaces.empty()) throw UsageError("name at least one of --features");
  const fs::path named = fs::absolute(corpus).lexically_normal();
  ReplicationAudit audit{
      .corpus = (named.has_filename() ? named : named.parent_path()).filename().string(),
      .has_holdout = holdout != nullptr,
      .records = store.count(),
      .names = {},
      .results = {},
      .warnings = {}};
  for (const FeatureSpace space : options.spaces) {
    audit.results.push_back(examine(space, corpus, store, holdout, options, audit.names));
    if (const int64_t left_out = audit.results.back().null_in_store; left_out > 0)
      audit.warnings.push_back(fmt::format(
          "{}: {} real images of the null equal a record of the store and were left out",
          to_string(space), left_out));
  }
  if (!holdout)
    audit.warnings.emplace_back(
        "without --holdout the null is of records against the other records; near duplicates "
        "among them lower the threshold, and copies are missed");
  return audit;
}

}  // namespace sfumato
