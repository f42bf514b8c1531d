#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "sfumato/audit/roc.h"
#include "sfumato/dist/communicator.h"
#include "sfumato/features/image_features.h"

namespace sfumato {

class RecordStore;

/// The private record nearest to an image.
struct NearestRecord {
  int64_t record = 0;
  double distance = 0;
  /// The distance divided by the mean distance of the next kNextNeighbours: small where one record
  /// is far nearer than all others, whatever the image's content; in [0, 1].
  double ratio = 0;
};
inline constexpr int64_t kNextNeighbours = 50;

/// For each image, uint8 [n, H, W, C]. `own` and `ranks` as in nearest_neighbours. UsageError:
/// fewer than three records.
std::vector<NearestRecord> nearest_records(const at::Tensor& images, const RecordStore& store,
                                           const ImageFeatures& features,
                                           std::span<const int64_t> own = {},
                                           Communicator* ranks = nullptr);
/// The same for records of a store, block by block. `of_store`: they are records of `store`
/// itself, each compared with the others. Interrupted if a stop signal came.
std::vector<NearestRecord> nearest_records(const RecordStore& images,
                                           std::span<const int64_t> records,
                                           const RecordStore& store, const ImageFeatures& features,
                                           bool of_store, Communicator* ranks = nullptr);

/// Whether synthetic images lie nearer to the records than real images that are not among them.
struct NullComparison {
  /// Mann-Whitney, with ties, normal approximation: negative where synthetic images lie nearer
  /// (the C_T of Meehan, Chaudhuri, Dasgupta 2020, without cells); `p_value` is one-sided.
  double z = 0, p_value = 1;
  /// Copies lie strictly below it, as at most kNullShare of the null do.
  double threshold = 0;
  Rate copies;
  double expected_share = 0;  ///< of copies, if synthetic images were as real ones
};
inline constexpr double kNullShare = 0.001;
NullComparison compare_with_null(std::span<const double> synthetic, std::span<const double> null);

/// One feature space's findings.
struct ReplicationResult {
  FeatureSpace space = FeatureSpace::kPixels;
  std::vector<NearestRecord> synthetic;  ///< in the order of the corpus
  std::vector<NearestRecord> null;       ///< of real images; those that are in the store are out
  int64_t null_in_store = 0;             ///< how many were left out
  NullComparison by_distance, by_ratio;
  /// Images that lie farther from their nearest record than that one from its own nearest (Alaa et
  /// al. 2022): about a half where images are as real ones, near 0 for copies.
  Rate authentic, null_authentic;

  bool is_copy(std::size_t image) const {
    return synthetic[image].distance < by_distance.threshold ||
           synthetic[image].ratio < by_ratio.threshold;
  }
};

struct ReplicationOptions {
  std::vector<FeatureSpace> spaces = {FeatureSpace::kPixels, FeatureSpace::kConvolution};
  int64_t count = 10000;  ///< images of the corpus and of the null; 0: all
  uint64_t seed = 0;      ///< of the choice of the null
};

struct ReplicationAudit {
  std::string corpus;              ///< name
  bool has_holdout = false;        ///< else the null is of records against the other records
  int64_t records = 0;             ///< in the store
  std::vector<std::string> names;  ///< of the synthetic images
  std::vector<ReplicationResult> results;
  std::vector<std::string> warnings;
};

/// Compares a corpus with the private `store`. `holdout`: real images of the same population that
/// the network has not seen; may be null. Time is that of count x store.count() distances for each
/// space, twice or thrice; memory does not depend on the store. UsageError where shapes differ.
/// `ranks` (null: this process alone) share the private records out, and all find what one process
/// finds: a collective call, after whose errors they have left. All read corpus and stores, which
/// must be the same (UsageError).
ReplicationAudit audit_replication(const std::filesystem::path& corpus, const RecordStore& store,
                                   const RecordStore* holdout, const ReplicationOptions& options,
                                   Communicator* ranks = nullptr);

}  // namespace sfumato
