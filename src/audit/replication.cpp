#include "sfumato/audit/replication.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <utility>

#include "sfumato/audit/membership.h"
#include "sfumato/audit/tail_probabilities.h"
#include "sfumato/core/error.h"
#include "sfumato/core/place.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/data/record_store.h"
#include "sfumato/dist/together.h"
#include "sfumato/features/corpus_images.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

/// A signal to any rank stops all.
void check_stop(Communicator& ranks) {
  if (!ranks.any(stop_requested())) return;
  ranks.leave();
  throw Interrupted("stopped; an audit starts anew when it is called again");
}

NearestRecord summary(const std::vector<Neighbour>& nearest) {
  double sum = 0;
  for (std::size_t i = 1; i < nearest.size(); ++i) sum += nearest[i].distance;
  const double mean = sum / static_cast<double>(nearest.size() - 1);
  const double first = nearest.front().distance;
  return {nearest.front().index, first, first > 0 ? std::min(first / mean, 1.0) : 0.0};
}

/// A corpus block by block.
class CorpusBlocks {
 public:
  CorpusBlocks(const fs::path& corpus, const RecordStore& store, int64_t count, int64_t block)
      : corpus_(corpus),
        store_(store),
        images_(corpus, count),
        held_(at::empty({block, store.height(), store.width(), store.channels()}, at::kByte)) {}

  /// The next images, uint8 [n, H, W, C], until the next call; none at the end.
  at::Tensor next() {
    const int64_t record_bytes = store_.height() * store_.width() * store_.channels();
    int64_t filled = 0;
    while (filled < held_.size(0) && images_.next()) {
      const Image image = to_channels(images_.image(), store_.channels());
      check_shape(image);
      std::memcpy(held_.mutable_data_ptr<std::uint8_t>() + filled++ * record_bytes,
                  image.pixels.data(), image.pixels.size());
      names_.push_back(images_.name());
    }
    if (names_.empty()) throw DataError(fmt::format("the corpus '{}' is empty", corpus_.string()));
    return held_.narrow(0, 0, filled);
  }
  const std::vector<std::string>& names() const { return names_; }

 private:
  void check_shape(const Image& image) const {
    if (image.height != store_.height() || image.width != store_.width())
      throw UsageError(fmt::format(
          "{} is {}x{} pixels, the store's records are {}x{}; compare a corpus with the store that "
          "its network was trained on",
          images_.name(), image.width, image.height, store_.width(), store_.height()));
  }

  fs::path corpus_;
  const RecordStore& store_;
  CorpusImages images_;
  at::Tensor held_;
  std::vector<std::string> names_;
};

std::string pixels_of(const at::Tensor& images) {
  return {reinterpret_cast<const char*>(images.const_data_ptr<std::uint8_t>()), images.nbytes()};
}

/// What ranks must have in common.
std::string description(const RecordStore& store, const RecordStore* holdout,
                        const ReplicationOptions& options) {
  std::string text =
      fmt::format("{} {} {} {}", store.manifest_hash(), holdout ? holdout->manifest_hash() : "",
                  options.count, options.seed);
  for (const FeatureSpace space : options.spaces) text += fmt::format(" {}", to_string(space));
  return text;
}

/// For each record among the nearest ones, how far it lies from its own nearest.
std::map<int64_t, double> own_distances(const std::vector<NearestRecord>& a,
                                        const std::vector<NearestRecord>& b,
                                        const RecordStore& store, const ImageFeatures& features,
                                        Communicator& ranks) {
  std::map<int64_t, double> distances;
  for (const auto* nearest : {&a, &b})
    for (const NearestRecord& one : *nearest) distances.emplace(one.record, 0);
  std::vector<int64_t> records;
  for (const auto& [record, distance] : distances) records.push_back(record);
  const auto found = nearest_records(store, records, store, features, true, &ranks);
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
                                   const ImageFeatures& features, const ReplicationOptions& options,
                                   Communicator& ranks) {
  const RecordStore& real = holdout ? *holdout : store;
  const auto records = choose_records(real.count(), options.count, options.seed, "null");
  return nearest_records(real, records, store, features, holdout == nullptr, &ranks);
}

ReplicationResult examine(FeatureSpace space, const fs::path& corpus, const RecordStore& store,
                          const RecordStore* holdout, const ReplicationOptions& options,
                          Communicator& ranks, std::vector<std::string>& names) {
  const ImageFeatures features(
      space, {.channels = store.channels(), .height = store.height(), .width = store.width()});
  ReplicationResult result;
  result.space = space;
  CorpusBlocks blocks(corpus, store, options.count, query_block(features.row_bytes()));
  while (true) {
    check_stop(ranks);
    at::Tensor images;
    or_part(ranks, [&] { everywhere(ranks, [&] { images = blocks.next(); }); });
    if (!ranks.alone())
      ranks.require_same("the corpus", pixels_of(images), "give all processes the same folder");
    if (images.size(0) == 0) break;
    for (const NearestRecord& one : nearest_records(images, store, features, {}, &ranks))
      result.synthetic.push_back(one);
  }
  names = blocks.names();
  result.null = null_of(store, holdout, features, options, ranks);
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
  const auto own = own_distances(result.synthetic, result.null, store, features, ranks);
  result.authentic = authentic_share(result.synthetic, own);
  result.null_authentic = authentic_share(result.null, own);
  return result;
}

}  // namespace

std::vector<NearestRecord> nearest_records(const at::Tensor& images, const RecordStore& store,
                                           const ImageFeatures& features,
                                           std::span<const int64_t> own, Communicator* ranks) {
  if (store.count() < 3)
    throw UsageError(
        fmt::format("'{}' holds too few records to compare images with", store.path().string()));
  const StoreFeatures references(store, features);
  std::vector<NearestRecord> found;
  for (const auto& nearest :
       nearest_neighbours(features(images), references, 1 + kNextNeighbours, own, ranks))
    found.push_back(summary(nearest));
  return found;
}

std::vector<NearestRecord> nearest_records(const RecordStore& images,
                                           std::span<const int64_t> records,
                                           const RecordStore& store, const ImageFeatures& features,
                                           bool of_store, Communicator* ranks) {
  const std::shared_ptr<Communicator> alone = single_process();
  std::vector<NearestRecord> found;
  const auto block = static_cast<std::size_t>(query_block(features.row_bytes()));
  for (std::size_t begin = 0; begin < records.size(); begin += block) {
    check_stop(ranks != nullptr ? *ranks : *alone);
    const auto part = records.subspan(begin, std::min(block, records.size() - begin));
    const auto own = of_store ? part : std::span<const int64_t>();
    for (const NearestRecord& one :
         nearest_records(store_images(images, part), store, features, own, ranks))
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
                                   const RecordStore* holdout, const ReplicationOptions& options,
                                   Communicator* given_ranks) {
  const std::shared_ptr<Communicator> alone = single_process();
  Communicator& ranks = given_ranks != nullptr ? *given_ranks : *alone;
  if (holdout && (holdout->height() != store.height() || holdout->width() != store.width() ||
                  holdout->channels() != store.channels()))
    throw UsageError("--store and --holdout hold images of different shapes");
  if (holdout && holdout->manifest_hash() == store.manifest_hash())
    throw UsageError("--store and --holdout are the same store");
  if (options.spaces.empty()) throw UsageError("name at least one of --features");
  ranks.require_same("what is compared", description(store, holdout, options),
                     "give all processes the same stores and options");
  ReplicationAudit audit{.corpus = without_slash(fs::absolute(corpus)).filename().string(),
                         .has_holdout = holdout != nullptr,
                         .records = store.count(),
                         .names = {},
                         .results = {},
                         .warnings = {}};
  for (const FeatureSpace space : options.spaces) {
    audit.results.push_back(examine(space, corpus, store, holdout, options, ranks, audit.names));
    if (const int64_t left_out = audit.results.back().null_in_store; left_out > 0)
      audit.warnings.push_back(fmt::format(
          "{}: {} real images of the null equal a record of the store and were left out",
          to_string(space), left_out));
  }
  if (!holdout)
    audit.warnings.emplace_back(
        "without a holdout the null is of records against the other records; near duplicates "
        "among them lower the threshold, and copies are missed");
  return audit;
}

}  // namespace sfumato
