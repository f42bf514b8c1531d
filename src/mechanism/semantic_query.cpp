#include "sfumato/mechanism/semantic_query.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <stdexcept>
#include <utility>

#include "sfumato/core/error.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/data/store_manifest.h"
#include "sfumato/io/json_file.h"
#include "sfumato/mechanism/declared_uses.h"
#include "sfumato/mechanism/private_statistics.h"
#include "sfumato/mechanism/session.h"
#include "sfumato/mechanism/stage.h"
#include "sfumato/run/public_store.h"
#include "sfumato/run/public_uses.h"

namespace sfumato {
namespace {

constexpr int kQueryVersion = 1;

/// The L2 norm of that many votes of a record.
double norm_of_votes(std::int64_t votes) { return std::sqrt(static_cast<double>(votes)); }

std::int64_t rows_of(const RecordStore& store) {
  return std::max<std::int64_t>(store.num_classes(), 1);
}

/// Of each private class, the votes of its records.
StatisticSum sum_votes(const RecordStore& store, const ClassMeans& votes, std::int64_t each,
                       double clip_norm_l2) {
  const std::int64_t classes = std::ssize(votes.sizes());
  StatisticSum sum(rows_of(store), classes, clip_norm_l2, Contributions::kNonNegative);
  std::vector<float> row(static_cast<std::size_t>(classes));
  for (std::int64_t i = 0; i < store.count(); ++i) {
    if (stop_requested())
      throw Interrupted(
          "stopped while votes for public classes were counted; nothing was released or charged, "
          "continue with --resume");
    std::ranges::fill(row, 0.0f);
    for (const std::int64_t label : votes.nearest(store.pixels(i), each))
      row[static_cast<std::size_t>(label)] = 1;
    sum.add(store.label(i), row);
  }
  return sum;
}

bool is_whole(const SemanticQuery& query) {
  const std::size_t classes = query.public_classes.size();
  const auto is_row = [&](const std::vector<double>& row) {
    return row.size() == classes &&
           std::ranges::all_of(row, [](double count) { return std::isfinite(count); });
  };
  return classes > 0 && query.public_images.size() == classes && !query.noisy_counts.empty() &&
         std::ranges::all_of(query.noisy_counts, is_row);
}

void note_use(const StageRun& run) {
  note_public_use(run.config.semantic_query.public_store(),
                  {run.session.ledger().run_id(), std::filesystem::absolute(run.folder).string()});
}

/// The manifest hash of the public store as it is now; "" where there is none any longer and
/// nothing asks for it: the warm-up is over.
std::string public_hash_now(const StageRun& run) {
  if (!run.training_has_begun)
    return open_public_store(run.config, run.store, run.session.plan()).manifest_hash();
  try {
    const nlohmann::json manifest = store_manifest(run.config.semantic_query.public_store());
    if (manifest.is_object() && manifest.contains("manifest_hash"))
      return manifest["manifest_hash"].get<std::string>();
  } catch (const DataError&) {
    // As good as gone.
  } catch (const nlohmann::json::exception&) {
    // Likewise.
  }
  return {};
}

/// What a stage that is done was asked must be what settings ask now: the warm-up looks its classes
/// up in that store.
void check_same_query(const StageRun& run, const std::filesystem::path& file) {
  const SemanticQuery query = SemanticQuery::load(file);
  const SemanticQuerySettings& settings = run.config.semantic_query;
  const std::string found = public_hash_now(run);
  if (found != query.public_store && !(run.training_has_begun && found.empty()))
    throw PrivacyError(fmt::format(
        "{} names '{}', which is not the record store whose classes were voted for in '{}' (its "
        "manifest hash is {}, and {} there; one that is prepared anew is another): put that store "
        "back, or start a new run in another run.dir",
        settings.public_store.key(), settings.public_store(), file.string(), found,
        query.public_store));
  if (!run.training_has_begun) note_use(run);
  if (settings.features() != query.features)
    throw UsageError(fmt::format("{} is '{}', and votes were counted by '{}'; set it back",
                                 settings.features.key(), settings.features(), query.features));
  require_enough_classes(run.config, std::ranges::count_if(query.public_images,
                                                           [](auto images) { return images > 0; }));
}

void run_stage(const StageRun& run, const std::filesystem::path& file) {
  const SemanticQuerySettings& settings = run.config.semantic_query;
  const RecordStore store = open_public_store(run.config, run.store, run.session.plan());
  const ImageShape shape{store.channels(), store.height(), store.width()};
  const ClassMeans votes(
      make_feature_network(settings.features(), {.shape = shape, .weights = settings.weights()}),
      store);
  require_enough_classes(run.config, votes.populated());
  note_use(run);  // whatever becomes of the run
  SemanticQuery query =
      release_semantic_query(run.store, run.plan, votes, settings.votes_per_record(), run.session);
  query.public_store = store.manifest_hash();
  query.public_classes = store.class_names();
  query.save(file);
}

}  // namespace

std::vector<std::vector<std::int64_t>> SemanticQuery::chosen_classes(std::int64_t kept) const {
  std::vector<std::int64_t> candidates;
  for (std::size_t c = 0; c < public_images.size(); ++c)
    if (public_images[c] > 0) candidates.push_back(static_cast<std::int64_t>(c));
  if (kept < 1 || kept > std::ssize(candidates))
    throw std::logic_error("settings that ask for more public classes than have images");
  std::vector<std::vector<std::int64_t>> chosen;
  for (const std::vector<double>& counts : noisy_counts) {
    std::vector<std::int64_t> order = candidates;
    std::ranges::stable_sort(order, [&](std::int64_t a, std::int64_t b) {
      return counts[static_cast<std::size_t>(a)] > counts[static_cast<std::size_t>(b)];
    });
    order.resize(static_cast<std::size_t>(kept));
    chosen.push_back(std::move(order));
  }
  return chosen;
}

void SemanticQuery::save(const std::filesystem::path& path) const {
  write_json_atomic(path, nlohmann::ordered_json{
                              {"schema_version", kQueryVersion},
                              {"noise_stddev", noise_stddev},
                              {"votes_per_record", votes_per_record},
                              {"public_store", public_store},
                              {"public_classes", public_classes},
                              {"public_images", public_images},
                              {"features", features},
                              {"features_weights", features_weights},
                              {"noisy_counts", noisy_counts},
                          });
}

SemanticQuery SemanticQuery::load(const std::filesystem::path& path) {
  const nlohmann::json json = read_json(path);
  SemanticQuery query;
  try {
    if (json.at("schema_version") == kQueryVersion) {
      json.at("noise_stddev").get_to(query.noise_stddev);
      json.at("votes_per_record").get_to(query.votes_per_record);
      json.at("public_store").get_to(query.public_store);
      json.at("public_classes").get_to(query.public_classes);
      json.at("public_images").get_to(query.public_images);
      json.at("features").get_to(query.features);
      json.at("features_weights").get_to(query.features_weights);
      json.at("noisy_counts").get_to(query.noisy_counts);
      if (is_whole(query)) return query;
    }
  } catch (const nlohmann::json::exception&) {
    // Told below, as what is none.
  }
  throw DataError(fmt::format(
      "'{}' holds no semantic query: expected a count for each private and public class",
      path.string()));
}

SemanticQuery release_semantic_query(const RecordStore& store, const StagePlan& stage,
                                     const ClassMeans& votes, std::int64_t votes_per_record,
                                     MechanismSession& session) {
  const Phase phase = executed_release(
      stage, norm_of_votes(votes_per_record),
      fmt::format("a semantic query is one release of every record's {} votes, of norm {}",
                  votes_per_record, norm_of_votes(votes_per_record)));
  SemanticQuery query;
  query.noise_stddev = phase.noise_multiplier * stage.clip_norm_l2;
  query.votes_per_record = votes_per_record;
  query.public_images = votes.sizes();
  query.features = votes.facts().network;
  query.features_weights = votes.facts().weights_sha256;
  const std::vector<double> counts =
      session.release(sum_votes(store, votes, votes_per_record, stage.clip_norm_l2), stage);
  const std::ptrdiff_t classes = std::ssize(votes.sizes());
  for (auto row = counts.begin(); row != counts.end(); row += classes)
    query.noisy_counts.emplace_back(row, row + classes);
  return query;
}

RecordStore open_public_store(const Config& config, const RecordStore& store,
                              const MechanismPlan& plan) {
  const Setting<std::string>& setting = config.semantic_query.public_store;
  RecordStore opened = RecordStore::open(setting());
  require_public_beside(opened, store, setting.key());
  std::vector<PrivacyEvent> needed;
  for (const SourceCard& card : source_cards(opened))
    if (card.card["status"] == "private")
      require_card_declared(card.file, card.card,
                            {fmt::format("what {} names", setting.key()), "public images"}, needed,
                            config, plan);
  if (opened.height() != store.height() || opened.width() != store.width() ||
      opened.channels() != store.channels())
    throw UsageError(fmt::format(
        "{}: '{}' has images of {}x{} pixels and {} channels, and the private ones have {}x{} and "
        "{}; prepare the public ones alike",
        setting.key(), setting(), opened.width(), opened.height(), opened.channels(), store.width(),
        store.height(), store.channels()));
  opened.verify_checksums();
  return opened;
}

void require_enough_classes(const Config& config, std::int64_t populated) {
  const auto require = [&](const Setting<std::int64_t>& setting) {
    if (setting() > populated)
      throw UsageError(
          fmt::format("{} is {}, and the public store has {} classes with images; set it lower",
                      setting.key(), setting(), populated));
  };
  require(config.semantic_query.votes_per_record);
  if (config.semantic_warmup.steps() > 0) require(config.semantic_warmup.classes_kept);
}

Stage semantic_query_stage() {
  return {
      .name = "semantic_query",
      .clip_norm_l2 =
          [](const Config& config) {
            return norm_of_votes(config.semantic_query.votes_per_record());
          },
      .contributions = Contributions::kNonNegative,
      .run = run_stage,
      .check = check_same_query,
  };
}

}  // namespace sfumato
