#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "sfumato/report/html_report.h"

namespace sfumato {

/// One mechanism that touched the private data.
struct PrivacyStage {
  std::string name;  ///< "train" or that of a StagePlan
  /// What the accountant counted, as to_json(PrivacyEvent) writes it: the executed steps of
  /// training, every other stage in full.
  nlohmann::ordered_json event = nlohmann::ordered_json::object();
  int64_t planned = 0;  ///< releases that the plan allows
  int64_t charged = 0;  ///< in the ledger; crashes may make it more than were executed
  double clip_norm_l2 = 0;
  bool declared = false;           ///< made elsewhere and counted here
  std::string clipping = {};       ///< training only
  double expected_batch_size = 0;  ///< training only
  std::string result_sha256 = {};  ///< of the file that a side stage of this run released
};

/// Where a run is trained is trusted. Cards of older versions do not say it.
inline constexpr const char* kMachinesAreTrusted =
    "Machines that train, and where several processes train together the network between them, are "
    "trusted: sums of a step before its noise and the key of its sample cross it unencrypted.";

/// On cards of stores whose names of classes were found among the private images.
inline constexpr const char* kNamesFromSource =
    "the names of the classes, their number and their order: they were found in the private source "
    "and its holder declared them public";

/// On cards of checkpoints.
inline constexpr const char* kChosenCheckpoint =
    "These are the weights of one checkpoint. A choice by previews, or by anything else that "
    "follows "
    "from the weights, is covered, since every planned step is counted; a choice by losses or "
    "other "
    "numbers under private/ is not.";

/// What all runs of a sweep amount to, on the card of one of them.
struct SweepTotal {
  int64_t runs = 0;
  double epsilon = 0, delta = 0;  ///< of all of them together
};

/// What may be said about a release, and on what grounds: the content of privacy_card.json. Start
/// from `kVoid` and earn the rest.
struct PrivacyCard {
  enum class Status {
    kPrivate,     ///< the claim holds
    kNotPrivate,  ///< trained without noise
    kVoid,        ///< a condition of the claim was waived, or nothing is known
  };
  Status status = Status::kVoid;
  std::vector<std::string> reasons;  ///< why not kPrivate; one clause each
  double epsilon = 0;
  std::optional<double> epsilon_lower;  ///< where the accountant gives a bracket
  double delta = 0;
  std::string unit;       ///< "one image"
  std::string adjacency;  ///< "add_remove", "zero_out", "replace_one"
  std::string sampler = "poisson";
  std::string accountant = "rdp";
  std::optional<double> order;  ///< of the Rényi divergence at which ε was found
  std::optional<double> grid;   ///< of the discretised privacy losses, in nats
  /// Runs on the private data among which this one is chosen; ε counts all stages that often.
  int64_t candidates = 1;
  /// {"law", "eta", "mean_runs"} where ε is that of a private selection of such runs; null: of this
  /// run. A card with it has another schema version, so that no program takes its ε for a run's.
  nlohmann::ordered_json selection_law = nullptr;
  std::optional<SweepTotal> sweep;  ///< of a run that is one of several, each charged by itself
  std::vector<PrivacyStage> stages;
  std::vector<std::pair<double, double>> epsilon_at_delta;  ///< (δ, ε) of the same events
  /// (false positive rate, largest true positive rate) of any test for one unit's presence.
  std::vector<std::pair<double, double>> true_positive_bounds;
  std::string sensitivity_margin;  ///< what covers the rounding of sums and noise, in words
  std::string noise;               ///< generator, in words
  /// What training started from: {"origin", "sha256", "on_word"}, null where it is not known.
  nlohmann::ordered_json initial_weights = nullptr;
  /// Of weights that are those of a checkpoint, whichever its holder chose; the claim must then
  /// count every planned step. Empty for those of the end.
  std::optional<int64_t> checkpoint_step;
  std::vector<std::string> public_data;  ///< what public data went in, such as pretrained weights
  /// Beyond the standing list, and what class_names_from asks for.
  std::vector<std::string> not_covered;
  std::string data_manifest_hash;  ///< keyed, leaks nothing
  std::string plan_hash;
  std::string ledger_head_hash;
  std::string weights_sha256;  ///< of the released weights file; ties the card to them
  /// Whether only a discriminator saw private images, and the generator learned from it.
  bool by_discriminator = false;
  std::string discriminator_sha256;  ///< of its weights file, where it is released as well
  // Public facts about the data, needed to sample.
  int64_t image_size = 0, channels = 0, num_classes = 0;
  std::vector<std::string> class_names;                ///< num_classes of them
  std::string class_names_from;                        ///< as StoreLayout::class_names_from
  std::vector<std::string> classes_that_may_be_empty;  ///< as in StoreLayout
};

/// privacy_card.json, keys in reading order. ε and δ are null unless the status is private; a
/// private card without a finite ε or with δ outside (0, 1) becomes void, and says so.
nlohmann::ordered_json to_json(const PrivacyCard& card);

/// Why there is no claim where there is no card.
inline constexpr const char* kNoCardReason = "no privacy card found beside the weights";
/// A card without any claim.
nlohmann::ordered_json void_card(const std::string& reason);
/// The card with one more reason why it is void.
nlohmann::ordered_json voided(nlohmann::ordered_json card, const std::string& reason);

/// The highest rate at which a test can recognise data that holds a unit, at that rate of false
/// alarms, under every (ε, δ) of `epsilon_at_delta` at once: the minimum over them of
/// e^ε fpr + δ and 1 - e^-ε (1 - δ - fpr), in [fpr, 1] (Kairouz, Oh, Viswanath 2015, theorem 2.1).
double largest_true_positive_rate(const std::vector<std::pair<double, double>>& epsilon_at_delta,
                                  double false_positive_rate);

/// A card's numbers may differ by this share from recomputed ones: other machines round otherwise.
inline constexpr double kCardTolerance = 1e-6;

/// Reads privacy_card.json; void_card if there is none. DataError if it is not a card, one of a
/// newer version, or one of schema version 1, which says too little to be held against a ledger.
nlohmann::ordered_json read_privacy_card(const std::filesystem::path& path);
/// The same for a text that was read from the file called `name`.
nlohmann::ordered_json parse_privacy_card(const std::string& text, const std::string& name);

// The three views below take any card that read_privacy_card or to_json returned.

/// Whether all that is wrong with a card is that there was none beside the weights, as with public
/// ones: no claim was made void. Whether the weights are public nobody has checked.
bool says_no_card(const nlohmann::ordered_json& card);

/// Status and one sentence, for a page's head.
struct CardBanner {
  ReportBanner banner = ReportBanner::kVoid;
  std::string headline;
};
CardBanner card_banner(const nlohmann::ordered_json& card);
/// Name and value of every field worth showing.
std::vector<std::pair<std::string, std::string>> card_rows(const nlohmann::ordered_json& card);
/// Markdown: heading, banner where there is no claim, statement, table, what is not covered.
std::string card_markdown(const nlohmann::ordered_json& card);
/// What the claim does not cover, one sentence each; empty where nothing is claimed.
std::vector<std::string> card_notes(const nlohmann::ordered_json& card);

}  // namespace sfumato
