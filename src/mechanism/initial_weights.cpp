#include "sfumato/mechanism/initial_weights.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "run/folders_above.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/core/sha256.h"
#include "sfumato/data/record_store.h"
#include "sfumato/io/weights_file.h"
#include "sfumato/mechanism/declared_uses.h"
#include "sfumato/mechanism/released_weights.h"
#include "sfumato/report/privacy_card.h"
#include "sfumato/run/run_directory.h"
#include "sfumato/run/run_verification.h"
#include "sfumato/run/weights_hash.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// How far above the weights a card speaks of them: unet/, release/, the run.
constexpr int kFoldersOfACard = 3;

const TakenUp kWeights = {"model.init", "weights trained on public images"};

/// What cannot be looked at from here is as good as not there.
bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

/// Where the weights lie: the folders that are named, those of the files that are loaded, and those
/// that links lead through.
std::vector<fs::path> places_of(const fs::path& init, const fs::path& network_folder) {
  std::vector<fs::path> places = {init, network_folder};
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(network_folder))
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  const fs::path weights = find_weights(network_folder);
  if (weights.extension() == ".json")
    for (const fs::path& shard : SafetensorsSet(weights).files()) files.push_back(shard);
  std::error_code ignored;
  for (fs::path file : files)
    for (int links = 0; links < 40; ++links) {
      places.push_back(file.parent_path());
      if (!fs::is_symlink(file, ignored)) break;
      file = file.parent_path() / fs::read_symlink(file, ignored);
    }
  return places;
}

/// The looks at one model.init, which all end in `found` or a refusal.
class Judgement {
 public:
  Judgement(const Config& config, const RecordStore& store, const MechanismPlan& plan)
      : config_(config), store_(store), plan_(plan), init_(config.model.init()) {}

  InitialWeights find(const PretrainedWeights& loaded) {
    if (loaded.weights.empty() || loaded.folders.empty())
      throw DataError(fmt::format("model.init '{}' holds no weights", init_.string()));
    std::vector<fs::path> places;
    for (const fs::path& network : loaded.folders) {
      hashes_.push_back(weights_sha256(network));
      for (fs::path& place : places_of(init_, network)) places.push_back(std::move(place));
    }
    networks_ = loaded.folders;
    found_ = {"public", start_sha256(hashes_), false, start_folders(init_, loaded.folders)};
    const std::vector<FolderAbove> folders = folders_above(places);
    for (const FolderAbove& folder : folders) {
      const fs::path card = folder.path / "privacy_card.json";
      if (folder.distance < kFoldersOfACard && is_there(card)) by_card(card);
      if (is_run_folder(folder.path)) by_run(folder.path, folders);
    }
    by_memory(find_known_weights(store_.path(), loaded.weights));
    return found_;
  }

 private:
  void refuse(const std::string& message) const {
    if (plan_.is_private) throw PrivacyError(message);
  }

  /// What is written inside a run is the run's, whatever a card beside it says.
  void by_run(const fs::path& run, const std::vector<FolderAbove>& folders) {
    const bool inside = std::ranges::any_of(
        folders, [&](const FolderAbove& folder) { return folder.path == run / "private"; });
    if (inside)
      refuse(fmt::format(
          "model.init '{}' lies in the private part of the run '{}': no privacy card speaks of "
          "checkpoints; take the run's release/, which {} finishes",
          init_.string(), run.string(), resume_command(run)));
    if (!seen_card_)
      refuse(fmt::format(
          "model.init '{}' lies in the run '{}', and no privacy card says what it costs; "
          "{} writes its card; public weights belong elsewhere",
          init_.string(), run.string(), resume_command(run)));
    if (is_there(run / "ledger.jsonl")) by_ledger(run);
  }

  /// Where a ledger is at hand, what it charges counts, and not what the card beside it says.
  void by_ledger(const fs::path& folder) {
    RunVerificationOptions options;
    options.run = folder;
    options.release_only = true;
    const RunVerification run = verify_run(options);
    if (const auto problems = run.problems(); !problems.empty())
      refuse(fmt::format(
          "model.init lies in the run '{}', whose ledger does not prove what is released there: "
          "{}; `sfumato ledger verify {}` says all that is wrong",
          folder.string(), problems.front(), folder.string()));
    if (!run.plan || !run.plan->is_private || run.ledger.insecure()) {
      refuse(fmt::format("the ledger of the run '{}', in which model.init lies, proves no privacy",
                         folder.string()));
      return worsen("not_private");
    }
    worsen("private");
    require(fmt::format("the ledger of the run '{}' says that", folder.string()), run.plan->unit,
            to_string(run.plan->adjacency), run.plan->cost(run.ledger.charged_steps));
  }

  void by_card(const fs::path& path) {
    seen_card_ = true;
    const Json card = read_privacy_card(path);
    const std::string file = path.string();
    if (card.value("weights_sha256", Json()) != Json(hashes_.front()))
      refuse(fmt::format(
          "'{}' is not the card of the weights of model.init (their SHA-256 is {}, on the card "
          "{}): "
          "what these weights know of private images is not known; put back what belongs together",
          file, hashes_.front(), card.value("weights_sha256", Json()).dump()));
    for (std::size_t other = 1; other < hashes_.size(); ++other)
      by_card_of_other(card, file, other);
    if (card["status"] == "private") return earlier_run(file, card);
    const bool same_store = card.value("data_manifest_hash", Json()) == store_.manifest_hash();
    if (card["status"] == "not_private" && same_store)
      refuse(fmt::format(
          "'{}' says that model.init was trained without privacy on this very record store: "
          "starting from it would release what it learned; choose weights trained on public images",
          file));
    if (card["status"] == "void")
      refuse(fmt::format(
          "'{}' is VOID: what the weights of model.init know of private images is not known; "
          "choose others",
          file));
    if (card["status"] == "not_private" && !config_.model.init_is_public())
      refuse(fmt::format(
          "'{}' says that model.init was trained without privacy, so that this run would release "
          "what it learned of its images; only if all of them are public, and none of them is in "
          "the record store under whatever name, say so with model.init_is_public=true",
          file));
    worsen("not_private");
    found_.on_word = true;
  }

  /// Whether the card speaks of a network that the one that draws learned from.
  void by_card_of_other(const Json& card, const std::string& file, std::size_t other) const {
    const Json said = card.value("networks", Json());
    if (said.is_object() && said.value("discriminator_sha256", Json()) == Json(hashes_[other]))
      return;
    const std::string name = networks_[other].filename().string();
    refuse(fmt::format(
        "'{}' is not the card of the {} of model.init (the SHA-256 of its weights is {}): what "
        "they know of private images is not known; put back what belongs together, or move {}/ "
        "away to begin with a new one",
        file, name, hashes_[other], name));
  }

  void earlier_run(const std::string& file, const Json& card) {
    worsen("private");
    const Json initial = card.value("initial_weights", Json());
    if (initial.is_object() && initial.value("on_word", Json()) == Json(true))
      found_.on_word = true;
    std::vector<PrivacyEvent> needed;  // of each card alone: another speaks of the same weights
    if (plan_.is_private) require_card_declared(file, card, kWeights, needed, config_, plan_);
  }

  void by_memory(const std::vector<KnownWeights>& all) {
    const std::string who =
        fmt::format("the record store '{}' remembers that", store_.path().string());
    for (const KnownWeights& known : all) {
      if (!known.defect.empty()) {
        refuse(fmt::format(
            "the record store '{}' remembers the weights of model.init, but not what they cost "
            "({}); put the file back as it was, or choose weights trained on public images",
            store_.path().string(), known.defect));
        worsen("not_private");
      } else if (!known.is_private) {
        refuse(fmt::format(
            "{} the weights of model.init were trained on it without privacy ({}): starting from "
            "them would release what they learned; choose weights trained on public images",
            who, known.noted));
        worsen("not_private");
      } else {
        worsen("private");
      }
    }
    std::vector<PrivacyEvent> together;
    for (const KnownWeights& known : all) {
      if (!known.defect.empty() || !known.is_private || is_counted_by_another(known, all)) continue;
      // For the unit and the adjacency of each, then for all that are in the weights at once.
      const std::vector<PrivacyEvent> events = known.plan.cost(known.charged_steps);
      together.insert(together.end(), events.begin(), events.end());
      require(who, known.plan.unit, to_string(known.plan.adjacency), together);
    }
  }

  /// Whether a run that started from these weights declared what they cost: its own witness counts
  /// them.
  static bool is_counted_by_another(const KnownWeights& known,
                                    const std::vector<KnownWeights>& all) {
    return std::ranges::any_of(all, [&](const KnownWeights& other) {
      return &other != &known && other.defect.empty() && other.is_private &&
             other.plan.adjacency == known.plan.adjacency && other.plan.unit == known.plan.unit &&
             not_declared(known.plan.cost(known.charged_steps), other.plan).empty();
    });
  }

  void require(const std::string& who, const std::string& unit, const std::string& adjacency,
               const std::vector<PrivacyEvent>& needed) {
    if (plan_.is_private) require_declared(who, kWeights, unit, adjacency, needed, config_, plan_);
  }

  /// The worst that is known of the weights stands.
  void worsen(const char* origin) {
    if (found_.origin != "not_private") found_.origin = origin;
  }

  const Config& config_;
  const RecordStore& store_;
  const MechanismPlan& plan_;
  const fs::path init_;
  InitialWeights found_;
  std::vector<fs::path> networks_;   ///< folders: the one that draws first
  std::vector<std::string> hashes_;  ///< SHA-256 of the weights in each
  bool seen_card_ = false;
};

std::string told(const InitialWeights& weights) {
  if (weights.origin == "scratch") return "none (it started from scratch)";
  return fmt::format("{} weights with the SHA-256 {}", weights.origin, weights.sha256);
}

}  // namespace

InitialWeights find_initial_weights(const Config& config, const RecordStore& store,
                                    const MechanismPlan& plan,
                                    const std::function<PretrainedWeights(const fs::path&)>& load) {
  if (config.model.init().empty()) return {};
  return Judgement(config, store, plan).find(load(config.model.init()));
}

void check_same_start(const std::optional<InitialWeights>& noted, const InitialWeights& found,
                      const std::string& ledger) {
  if (!noted) {
    log_warning(fmt::format(
        "the ledger '{}' was begun by an older version, which did not note the weights that a run "
        "starts from: the privacy card will say so",
        ledger));
    return;
  }
  if (noted->sha256 != found.sha256)
    throw PrivacyError(fmt::format(
        "the run started from other weights than model.init names now: the ledger '{}' notes {}, "
        "and here are {}; set model.init to the folder that the run was started with",
        ledger, told(*noted), told(found)));
  if (*noted != found)
    throw PrivacyError(fmt::format(
        "what is known of model.init has changed since the run was started: the ledger '{}' notes "
        "{}, and here are {}; put back the privacy card beside them and the setting "
        "model.init_is_public, or start a new run",
        ledger, told(*noted), told(found)));
}

}  // namespace sfumato
