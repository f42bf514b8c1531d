#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "sfumato/config/config.h"
#include "sfumato/data/record_store.h"
#include "sfumato/features/class_means.h"
#include "sfumato/privacy/mechanism.h"

namespace sfumato {

class MechanismSession;

/// How many private images lie nearest to each public class, noisily: what public images may be
/// chosen by without further cost.
struct SemanticQuery {
  std::vector<std::vector<double>> noisy_counts;  ///< [private classes][public classes], votes
  double noise_stddev = 0;                        ///< of the noise on each of them
  std::int64_t votes_per_record = 1;
  std::string public_store;  ///< manifest_hash of the record store whose classes were voted for
  std::vector<std::string> public_classes;  ///< their names
  std::vector<std::int64_t> public_images;  ///< and how many images each of them has
  std::string features, features_weights;   ///< network and what its weights are (FeatureFacts)

  /// For each private class the `kept` public classes with its largest counts, largest first and of
  /// equal ones the lower label first. Public classes without images are never chosen; of the
  /// others there must be at least `kept`, as require_enough_classes sees to; else
  /// std::logic_error.
  std::vector<std::vector<std::int64_t>> chosen_classes(std::int64_t kept) const;

  /// As JSON.
  void save(const std::filesystem::path& path) const;
  /// DataError if the file is damaged or holds something else.
  static SemanticQuery load(const std::filesystem::path& path);
};

/// Runs the stage (the semantic query of PrivImage, Li et al. 2024, arXiv 2311.12850): one release,
/// over all records, of the votes of each private class for the public classes `votes` counts its
/// records' nearest ones by, `votes_per_record` each. One private class if the store has none.
///
/// Sensitivity: a record adds 1 to `votes_per_record` cells of the row of its own class, and which
/// they are follows from its own bytes and public images; so by sqrt(votes_per_record) in L2 where
/// it is added, removed or blanked out, and by sqrt(2) of that where it is replaced, since counts
/// are not negative. PrivacyError unless the stage is one release of every record with that norm.
SemanticQuery release_semantic_query(const RecordStore& store, const StagePlan& stage,
                                     const ClassMeans& votes, std::int64_t votes_per_record,
                                     MechanismSession& session);

/// The record store mechanism.stages.semantic_query.public_store, whole by its checksums, which
/// shares nothing with the private `store` that stores remember (require_public_beside); where its
/// images were drawn from earlier private runs, `plan` declares what those cost, as for model.init.
/// UsageError if its images have another shape; DataError as RecordStore::open.
RecordStore open_public_store(const Config& config, const RecordStore& store,
                              const MechanismPlan& plan);

/// UsageError if settings ask for more public classes than have images: before anything is charged,
/// and where a run goes on before its warm-up.
void require_enough_classes(const Config& config, std::int64_t populated);

}  // namespace sfumato
