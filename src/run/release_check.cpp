#include "run/release_check.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string_view>

#include "run/checkpoint_binding.h"
#include "run/configuration_comparison.h"
#include "run/release_page.h"
#include "run/run_card.h"
#include "sfumato/config/config.h"
#include "sfumato/config/public_settings.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/sha256.h"
#include "sfumato/core/text.h"
#include "sfumato/core/version.h"
#include "sfumato/data/record_store.h"
#include "sfumato/io/safetensors.h"
#include "sfumato/report/html_report.h"
#include "sfumato/report/privacy_card.h"
#include "sfumato/run/card_alone.h"
#include "sfumato/run/card_plots.h"
#include "sfumato/run/checkpoint.h"
#include "sfumato/run/run_directory.h"
#include "sfumato/run/weights_hash.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// The folder of a network that a release may hold beside the one that draws.
constexpr const char* kDiscriminator = "discriminator";
constexpr const char *kDiscriminatorConfig = "discriminator/config.json",
                     *kDiscriminatorWeights = "discriminator/diffusion_pytorch_model.safetensors";
/// What a release may hold beside the weights with their config.json, the card, its pages and what
/// stages leave: said here and not in a ledger, so that no line can allow more.
constexpr std::string_view kReleaseFiles[] = {"README.md",
                                              "model_index.json",
                                              "network.py",
                                              "sample.py",
                                              "scheduler/scheduler_config.json",
                                              kDiscriminatorConfig,
                                              kDiscriminatorWeights};
constexpr std::string_view kConfig = "/config.json";

/// FOLDER/config.json of the network that draws, where FOLDER is a plain name.
bool is_config(const std::string& file) {
  return !file.starts_with(kDiscriminator) && file.ends_with(kConfig) &&
         file.size() > kConfig.size() &&
         file.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") ==
             file.size() - kConfig.size();
}

/// The checkpoint that the ledger notes last, if it is there and its own.
std::optional<Checkpoint> last_checkpoint(const LedgerSummary& ledger, const fs::path& run) {
  const std::int64_t last = last_checkpoint_step(ledger);
  const auto newest = newest_checkpoint(run / "private" / "checkpoints");
  if (!newest) return std::nullopt;
  try {
    Checkpoint checkpoint = read_checkpoint(*newest);
    std::int64_t line = 0;
    if (checkpoint.step == last && checkpoint_defect(ledger, checkpoint, last, line).empty())
      return checkpoint;
  } catch (const std::exception&) {
    // The check of the checkpoints says what is wrong with it.
  }
  return std::nullopt;
}

/// A release holds the tensors of a checkpoint as they are.
bool same_tensor(const TensorInfo& a, const TensorInfo& b) {
  return a.dtype == b.dtype && a.shape == b.shape && std::ranges::equal(a.bytes, b.bytes);
}

/// Names of the tensors in `folder` that are not what a release of `checkpoint` holds: its group
/// `network` with the averages of what has one in `average`. All, where it has no such group.
std::vector<std::string> foreign_tensors(const Checkpoint& checkpoint, std::string_view network,
                                         std::string_view average, const fs::path& folder) {
  std::map<std::string, TensorInfo> expected;
  for (const TensorGroup& group : checkpoint.groups)
    if (group.name == network)
      for (const TensorInfo& tensor : group.tensors) expected.emplace(tensor.name, tensor);
  for (const TensorGroup& group : checkpoint.groups)
    if (group.name == average)
      for (const TensorInfo& tensor : group.tensors)
        if (const auto found = expected.find(tensor.name); found != expected.end())
          found->second = tensor;
  const SafetensorsSet released(folder);
  std::vector<std::string> foreign;
  for (const std::string& name : released.names()) {
    const auto found = expected.find(name);
    if (found == expected.end() || !same_tensor(released.info(name), found->second))
      foreign.push_back(name);
    if (found != expected.end()) expected.erase(found);
  }
  for (const auto& [name, value] : expected) foreign.push_back(name);
  return foreign;
}

/// What in the networks of `release` is not the last checkpoint's, each with its folder.
std::vector<std::string> foreign_weights(const Checkpoint& checkpoint, const fs::path& release,
                                         const std::map<std::string, std::string>& files) {
  std::vector<std::string> defects;
  const auto compare = [&](const std::string& network, const char* group, const char* average,
                           const char* whose) {
    const fs::path folder = release / network;
    const auto foreign = foreign_tensors(checkpoint, group, average, folder);
    if (!foreign.empty())
      defects.push_back(fmt::format(
          "'{}': {} tensors are not those of the {} in the last checkpoint, which the ledger notes "
          "('{}', ...)",
          folder.string(), foreign.size(), whose, foreign.front()));
  };
  compare(weights_folder(files), kReleasedGroup, kAverageGroup, "average");
  // One that is missing is for the check of the files.
  if (files.contains(kDiscriminatorWeights) && fs::exists(release / kDiscriminatorWeights))
    compare(kDiscriminator, kDiscriminatorGroup, "", "discriminator");
  return defects;
}

/// What a folder holds besides `known`, sorted.
std::vector<std::string> other_files(const fs::path& folder, const std::set<std::string>& known) {
  std::vector<std::string> others;
  if (!fs::is_directory(folder)) return others;
  for (const auto& entry : fs::directory_iterator(folder))
    if (const std::string name = entry.path().filename().string(); !known.contains(name))
      others.push_back(name);
  std::ranges::sort(others);
  return others;
}

/// Where the one text between `from` and `to` lies that a page may choose itself.
struct Span {
  std::size_t begin = 0, end = 0;
};
std::optional<Span> between(const std::string& text, const std::string& from,
                            const std::string& to) {
  const std::size_t begin = text.rfind(from);
  if (begin == text.npos) return std::nullopt;
  const std::size_t end = text.find(to, begin + from.size());
  if (end == text.npos) return std::nullopt;
  return Span{begin + from.size(), end};
}

std::string code_of(const Json& card, const char* key) {
  const Json code = card.value("code", Json());
  return code.is_object() && code.contains(key) && code[key].is_string()
             ? code[key].get<std::string>()
             : std::string();
}

std::string unescaped(std::string text) {
  constexpr std::pair<const char*, const char*> kEntities[] = {
      {"&lt;", "<"}, {"&gt;", ">"}, {"&quot;", "\""}, {"&#39;", "'"}, {"&amp;", "&"}};
  for (const auto& [entity, character] : kEntities)
    for (std::size_t at = 0; (at = text.find(entity, at)) != text.npos; ++at)
      text.replace(at, std::string_view(entity).size(), character);
  return text;
}

}  // namespace

std::string weights_folder(const std::map<std::string, std::string>& files) {
  std::string folder = "unet";
  for (const auto& [file, hash] : files)
    if (is_config(file)) folder = file.substr(0, file.size() - kConfig.size());
  return folder;
}

std::vector<std::string> layout_defects(const std::map<std::string, std::string>& files) {
  std::vector<std::string> defects;
  int configs = 0;
  for (const auto& [file, hash] : files) {
    configs += is_config(file) ? 1 : 0;
    if (!is_config(file) && std::ranges::find(kReleaseFiles, file) == std::end(kReleaseFiles))
      defects.push_back(fmt::format("'{}' is no part of a release", file));
  }
  if (files.contains(kDiscriminatorConfig) != files.contains(kDiscriminatorWeights))
    defects.push_back("a discriminator is its config.json and its weights");
  if (!files.empty() && configs != 1)
    defects.push_back(fmt::format("there are {} networks, and a release has one", configs));
  return defects;
}

RunCheck check_weights(const LedgerSummary& ledger, const Json& card, const fs::path& run) {
  const std::string name = "weights";
  const fs::path folder = run / "release" / weights_folder(ledger.released.files);
  if (!fs::is_directory(folder)) return not_checked(name, "release/ holds none");
  const std::string remedy =
      fmt::format("put back what belongs together, or {} releases again", resume_command(run));
  const std::string found = weights_sha256(folder);
  std::vector<std::string> problems;
  const auto problem = [&](const std::string& text) {
    problems.push_back(fmt::format("'{}': {}; {}", folder.string(), text, remedy));
  };
  if (card.value("weights_sha256", Json()) != found)
    problem(fmt::format("the SHA-256 of the weights is {}, and the card was written for {}", found,
                        card.value("weights_sha256", Json()).dump()));
  const bool noted = !ledger.released.weights.empty();
  if (noted && ledger.released.weights != found)
    problem(fmt::format("the SHA-256 of the weights is {}, and the ledger notes {} as released",
                        found, ledger.released.weights));
  if (!noted && ledger.initial_weights)  // whose version notes every release
    problem("the ledger notes no release: lines were removed, or the weights are not this run's");
  const auto checkpoint = last_checkpoint(ledger, run);
  if (checkpoint)
    for (const std::string& defect :
         foreign_weights(*checkpoint, run / "release", ledger.released.files))
      problems.push_back(fmt::format("{}; {}", defect, remedy));
  // Other files beside the weights are read by other programs: an index with shards, a pickle.
  for (const std::string& other :
       other_files(folder, {"config.json", "diffusion_pytorch_model.safetensors"}))
    problem(fmt::format("'{}' is no part of a release, and other programs might read it", other));
  if (problems.empty() && !noted && !checkpoint)
    return not_checked(name,
                       "are those of the card, but the ledger, begun by an older version, does not "
                       "note the release, and the last checkpoint is not here");
  return outcome_of(name,
                    checkpoint ? "are those of the card, the ledger and the last checkpoint"
                               : "are those of the card and the ledger",
                    problems);
}

RunCheck check_facts(const LedgerSummary& ledger, const Json& card, const fs::path& card_file,
                     const fs::path& store) {
  const std::string name = "public facts";
  const std::string again = resume_command(card_file.parent_path().parent_path()),
                    remedy = again + " writes the card again";
  std::vector<std::string> problems, held_against;
  for (const std::string& defect : facts_defects(card))
    problems.push_back(fmt::format("'{}': {}; {}", card_file.string(), defect, remedy));
  const std::string found = card_facts_sha256(card);
  if (!ledger.data_manifest_hash.empty() &&
      card.value("data_manifest_hash", Json()) != Json(ledger.data_manifest_hash))
    problems.push_back(
        fmt::format("'{}': data_manifest_hash is not that of the record store with which the "
                    "ledger begins ({}); {}",
                    card_file.string(), ledger.data_manifest_hash, remedy));
  if (!ledger.released.card_facts.empty()) {
    held_against.push_back("the ledger's note of them");
    if (found != ledger.released.card_facts)
      problems.push_back(fmt::format(
          "'{}': public_facts or data_manifest_hash are not those that the ledger notes of the "
          "release (their SHA-256 is {}, in the ledger {}); {}",
          card_file.string(), found, ledger.released.card_facts, remedy));
  }
  if (!store.empty()) try {
      PrivacyCard expected;
      describe_data(RecordStore::open(store), expected);
      held_against.push_back("the record store");
      if (found != card_facts_sha256(to_json(expected)))
        problems.push_back(fmt::format(
            "'{}': public_facts or data_manifest_hash are not those of the record store '{}'; name "
            "the store that the run used with --store, or let {} write the card again",
            card_file.string(), store.string(), again));
    } catch (const Error&) {
      // Not one that can be held against; the check of the witness says what it is.
    }
  if (problems.empty() && held_against.empty())
    return not_checked(name,
                       "the ledger, begun by an older version, does not note them, and no record "
                       "store is known; name it with --store");
  return outcome_of(name, fmt::format("agree with {}", fmt::join(held_against, " and ")),
                    std::move(problems));
}

RunCheck check_files(const LedgerSummary& ledger, const fs::path& run,
                     const std::vector<StageFile>& stages) {
  const std::string name = "release files";
  const fs::path release = run / "release";
  if (!fs::is_directory(release)) return not_checked(name, "there are none (release/)");
  std::vector<std::string> problems;
  const auto foreign = [&](const fs::path& folder, const std::vector<std::string>& others) {
    for (const std::string& other : others)
      problems.push_back(
          fmt::format("'{}': is no part of a release, and whoever gets it might read it as one; "
                      "move it away",
                      (folder / other).string()));
  };
  for (const std::string& defect : layout_defects(ledger.released.files))
    problems.push_back(fmt::format("'{}': the ledger notes as released what none is: {}",
                                   release.string(), defect));
  std::set<std::string> known = {"report.html",
                                 "privacy_card.json",
                                 "privacy_card.md",
                                 "README.md",
                                 "model_index.json",
                                 "scheduler",
                                 weights_folder(ledger.released.files)};
  for (const StageFile& stage : stages) known.insert(stage.file);
  // What only some families leave is known where the ledger notes it.
  for (const auto& [file, noted] : ledger.released.files)
    known.insert(file.substr(0, file.find('/')));
  foreign(release, other_files(release, known));  // the weights' folder is looked at by itself
  foreign(release / "scheduler", other_files(release / "scheduler", {"scheduler_config.json"}));
  if (known.contains(kDiscriminator))
    foreign(release / kDiscriminator,
            other_files(release / kDiscriminator,
                        {"config.json", "diffusion_pytorch_model.safetensors"}));
  if (!fs::exists(release / "privacy_card.json") && problems.empty())
    return not_checked(name, "nothing is released yet");
  for (const auto& [file, noted] : ledger.released.files) {
    const fs::path path = release / file;
    const bool there = fs::is_regular_file(path);
    if (const std::string found = there ? sha256_hex(read_file(path)) : "missing"; found != noted)
      problems.push_back(fmt::format(
          "'{}': {}, and the ledger notes {} as released; put it back, or {} writes it again",
          path.string(), there ? "its SHA-256 is " + found : "it is missing", noted,
          resume_command(run)));
  }
  if (problems.empty() && ledger.released.files.empty())
    return not_checked(name, "the ledger, begun by an older version, does not note what they hold");
  return outcome_of(name, "are those that the ledger notes, and there are no others",
                    std::move(problems));
}

std::string report_defect(const Json& card, const fs::path& page, const MechanismPlan& plan) {
  const auto refuse = [&](const std::string& defect) {
    return fmt::format("'{}' {}; {} writes it again", page.string(), defect,
                       resume_command(page.parent_path().parent_path()));
  };
  if (!fs::exists(page)) return refuse("is missing, and whoever gets the release would read it");
  const std::string text = read_file(page);
  constexpr const char* kSettings = "<h2>Settings</h2>\n<pre>";
  const auto there = between(text, kSettings, "</pre>");
  if (!there) return refuse("is not the page of a release");
  // What is taken from the page below must be text and no HTML, in whatever version's page.
  const std::string shown = text.substr(there->begin, there->end - there->begin);
  const std::string yaml = unescaped(shown);
  if (html_escape(yaml) != shown) return refuse("has HTML among its settings");
  // Pages of versions that drew none say less, and nothing else.
  const std::string plots = card_plots_in(text);
  if (!plots.empty())
    if (const std::string defect = card_plots_defect(card, plots); !defect.empty())
      return refuse(defect);
  std::string expected = release_page(card, "settings: go here", plots);
  // Its settings are looked at by themselves; the version that wrote it is the card's.
  const auto here = between(expected, kSettings, "</pre>");
  if (!here) return refuse("is not the page of a release");
  expected.replace(here->begin, here->end - here->begin, shown);
  const std::string writer =
      fmt::format("sfumato {} ({})", code_of(card, "version"), code_of(card, "commit"));
  if (const auto footer = between(expected, "<footer>Written by ", ".</footer>"))
    expected.replace(footer->begin, footer->end - footer->begin, html_escape(writer));
  if (expected != text) return refuse("does not say what the card beside it says");
  const bool same_code =
      code_of(card, "version") == version() && code_of(card, "commit") == git_commit();
  try {
    Config config;
    const bool readable = config.read_yaml(yaml, page.string()).empty();
    // Settings of another version need not be understood here.
    if (same_code && (!readable || public_settings_yaml(config) != yaml))
      return refuse("shows what are no settings");
    if (!readable) return {};
    if (const auto differing = configuration_differences(config, plan); !differing.empty())
      return refuse(fmt::format("shows other settings: {}", differing.front()));
  } catch (const Error& error) {
    if (same_code) return refuse(error.what());
  }
  return {};
}

}  // namespace sfumato
