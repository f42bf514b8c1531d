#include "sfumato/mechanism/initial_weights.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "run/card_events.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/data/record_store.h"
#include "sfumato/models/checkpoint_io.h"
#include "sfumato/privacy/accountant.h"
#include "sfumato/report/privacy_card.h"
#include "sfumato/run/released_weights.h"
#include "sfumato/run/weights_hash.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// How far above the weights a card or a ledger is looked for: unet/, release/, the run.
constexpr int kFoldersAbove = 3;

/// Whether whoever sees what `declared` reveals could make what `needed` reveals from it.
bool covers(const PrivacyEvent& declared, const PrivacyEvent& needed) {
  if (const auto* a = std::get_if<Phase>(&declared)) {
    const auto* b = std::get_if<Phase>(&needed);
    return b != nullptr && a->sample_rate >= b->sample_rate &&
           a->noise_multiplier <= b->noise_multiplier && a->steps >= b->steps &&
           a->records_per_unit == b->records_per_unit && !a->truncation && !b->truncation;
  }
  if (const auto* a = std::get_if<GaussianRelease>(&declared)) {
    const auto* b = std::get_if<GaussianRelease>(&needed);
    return b != nullptr && a->sensitivity_l2 >= b->sensitivity_l2 &&
           a->noise_stddev <= b->noise_stddev && a->count >= b->count;
  }
  const auto& a = std::get<ApproximateRelease>(declared);
  const auto* b = std::get_if<ApproximateRelease>(&needed);
  return b != nullptr && a.epsilon >= b->epsilon && a.delta >= b->delta && a.count >= b->count;
}

bool same(const PrivacyEvent& a, const PrivacyEvent& b) { return to_json(a) == to_json(b); }

bool reveals_nothing(const PrivacyEvent& event) {
  const Json json = to_json(event);
  return json.at(json.contains("steps") ? "steps" : "count").get<std::int64_t>() == 0;
}

/// Whether one (epsilon, delta) pays for all of `events`.
bool pays_for(const PrivacyEvent& declared, const std::vector<PrivacyEvent>& events,
              Adjacency adjacency) {
  const auto* sum = std::get_if<ApproximateRelease>(&declared);
  return sum != nullptr && sum->count >= 1 && sum->delta > 0 && sum->delta < 1 &&
         account_epsilon(Accountant::kPld, events, sum->delta, adjacency).epsilon <= sum->epsilon;
}

/// What cannot be looked at from here is as good as not there.
bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

/// Every folder that the weights lie in, links followed, from the nearest up.
std::vector<fs::path> folders_of(const fs::path& init, const fs::path& network_folder) {
  std::vector<fs::path> starts = {fs::weakly_canonical(init), fs::weakly_canonical(network_folder)};
  for (const auto& entry : fs::directory_iterator(network_folder))
    if (entry.path().extension() == ".safetensors")
      starts.push_back(fs::weakly_canonical(entry.path()).parent_path());
  std::vector<fs::path> folders;
  std::set<fs::path> seen;
  for (fs::path folder : starts)
    for (int up = 0; up < kFoldersAbove; ++up, folder = folder.parent_path())
      if (seen.insert(folder).second) folders.push_back(folder);
  return folders;
}

/// The looks at one model.init, which all end in `found` or a refusal.
class Judgement {
 public:
  Judgement(const Config& config, const RecordStore& store, const MechanismPlan& plan)
      : config_(config), store_(store), plan_(plan), init_(config.model.init()) {}

  FoundWeights find() {
    const LoadedUNet loaded = load_unet2d(init_);
    found_.digest = network_digest(named_weights(*loaded.network));
    found_.initial = {"public", weights_sha256(loaded.folder), false};
    for (const fs::path& folder : folders_of(init_, loaded.folder)) {
      const bool is_run = is_there(folder / "ledger.jsonl");
      if (is_there(folder / "privacy_card.json"))
        by_card(folder / "privacy_card.json");
      else if (is_run && !seen_card_)
        refuse(fmt::format(
            "model.init '{}' lies in the run '{}', and no privacy card says what it costs; "
            "`sfumato train --resume` of that run writes its card; public weights belong elsewhere",
            init_.string(), folder.string()));
    }
    if (const auto known = find_release(store_.path(), found_.digest)) by_memory(*known);
    return found_;
  }

 private:
  void refuse(const std::string& message) const {
    if (plan_.is_private) throw PrivacyError(message);
  }

  void by_card(const fs::path& path) {
    seen_card_ = true;
    const Json card = read_privacy_card(path);
    const std::string file = path.string();
    if (card.value("weights_sha256", Json()) != Json(found_.initial.sha256))
      refuse(fmt::format(
          "'{}' is not the card of the weights of model.init (their SHA-256 is {}, on the card "
          "{}): "
          "what these weights know of private images is not known; put back what belongs together",
          file, found_.initial.sha256, card.value("weights_sha256", Json()).dump()));
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
    found_.initial.on_word = true;
  }

  /// A card is believed in what it counts, which is recomputed, and not in the ε it says.
  void earlier_run(const std::string& file, const Json& card) {
    worsen("private");
    const Json initial = card.value("initial_weights", Json());
    if (initial.is_object() && initial.value("on_word", Json()) == Json(true))
      found_.initial.on_word = true;
    require(fmt::format("'{}' says that", file), card.value("unit", ""),
            card.value("adjacency", ""), card_events(file, card));
  }

  void by_memory(const ReleasedWeights& known) {
    const std::string who =
        fmt::format("the record store '{}' remembers that", store_.path().string());
    if (!known.is_private) {
      refuse(fmt::format(
          "{} the weights of model.init were trained on it without privacy ({}): starting from "
          "them would release what they learned; choose weights trained on public images",
          who, known.released));
      worsen("not_private");
      return;
    }
    worsen("private");
    require(who, known.plan.unit, to_string(known.plan.adjacency),
            known.plan.events(known.charged_steps));
  }

  /// The claim of this run holds for the weights that it starts from too only if everything that
  /// made them is composed into it.
  void require(const std::string& who, const std::string& unit, const std::string& adjacency,
               const std::vector<PrivacyEvent>& needed) {
    if (!plan_.is_private) return;
    if (unit != plan_.unit || adjacency != to_string(plan_.adjacency))
      refuse(fmt::format(
          "{} model.init comes from a private run whose unit of privacy is '{}' under {} "
          "adjacency; "
          "here they are '{}' and {}, and no sum of the two is known. Train both runs alike, or "
          "choose weights trained on public images",
          who, unit, adjacency, plan_.unit, to_string(plan_.adjacency)));
    const std::vector<PrivacyEvent> missing = not_declared(needed, plan_);
    if (missing.empty()) return;
    std::vector<std::string> texts = config_.mechanism.declared();
    for (const PrivacyEvent& event : missing) texts.push_back(to_text(event));
    refuse(fmt::format(
        "{} model.init comes from an earlier private run, whose cost counts again: what it "
        "released is in what this run releases. Declare it, so that the claim is about both:\n"
        "  mechanism.declared={}",
        who, Json(texts).dump()));
  }

  /// The worst that is known of the weights stands.
  void worsen(const char* origin) {
    if (found_.initial.origin != "not_private") found_.initial.origin = origin;
  }

  const Config& config_;
  const RecordStore& store_;
  const MechanismPlan& plan_;
  const fs::path init_;
  FoundWeights found_;
  bool seen_card_ = false;
};

std::string told(const InitialWeights& weights) {
  if (weights.origin == "scratch") return "none (it started from scratch)";
  return fmt::format("{} weights with the SHA-256 {}", weights.origin, weights.sha256);
}

}  // namespace

std::vector<PrivacyEvent> not_declared(std::span<const PrivacyEvent> needed,
                                       const MechanismPlan& plan) {
  std::vector<PrivacyEvent> left, declared;
  for (const PrivacyEvent& event : needed)
    if (!reveals_nothing(event)) left.push_back(event);
  for (const StagePlan& stage : plan.stages)
    if (stage.declared) declared.push_back(stage.event);
  // Equal ones first, so that a larger one is not used up for what a smaller one covers.
  for (const auto& matches : {same, covers})
    for (auto event = left.begin(); event != left.end();) {
      const auto found =
          std::find_if(declared.begin(), declared.end(),
                       [&](const PrivacyEvent& candidate) { return matches(candidate, *event); });
      if (found == declared.end()) {
        ++event;
        continue;
      }
      declared.erase(found);
      event = left.erase(event);
    }
  if (left.empty()) return left;
  for (const PrivacyEvent& event : declared)
    if (pays_for(event, left, plan.adjacency)) return {};
  return left;
}

FoundWeights find_initial_weights(const Config& config, const RecordStore& store,
                                  const MechanismPlan& plan) {
  if (config.model.init().empty()) return {};
  return Judgement(config, store, plan).find();
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
