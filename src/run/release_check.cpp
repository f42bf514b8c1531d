#include "run/release_check.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <map>
#include <optional>

#include "run/checkpoint_binding.h"
#include "run/configuration_comparison.h"
#include "run/release_page.h"
#include "sfumato/config/config.h"
#include "sfumato/config/public_settings.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/text.h"
#include "sfumato/core/version.h"
#include "sfumato/models/tensor_file.h"
#include "sfumato/report/html_report.h"
#include "sfumato/report/privacy_card.h"
#include "sfumato/run/checkpoint.h"
#include "sfumato/run/weights_hash.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// The checkpoint that the ledger notes last, if it is there and its own.
std::optional<Checkpoint> last_checkpoint(const LedgerSummary& ledger, const fs::path& run) {
  std::int64_t last = -1;
  for (const LedgerPoint& point : ledger.history)
    if (point.checkpoint_step >= 0) last = point.checkpoint_step;
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

/// Names of the tensors in `folder` that are not what a release of `checkpoint` holds.
std::vector<std::string> foreign_tensors(const Checkpoint& checkpoint, const fs::path& folder) {
  std::map<std::string, at::Tensor> expected(checkpoint.model.begin(), checkpoint.model.end());
  for (const auto& [name, value] : checkpoint.ema)
    if (const auto found = expected.find(name); found != expected.end()) found->second = value;
  const SafetensorsSet released(folder);
  std::vector<std::string> foreign;
  for (const std::string& name : released.names()) {
    const auto found = expected.find(name);
    if (found == expected.end() || !to_tensor(released.info(name)).equal(found->second))
      foreign.push_back(name);
    if (found != expected.end()) expected.erase(found);
  }
  for (const auto& [name, value] : expected) foreign.push_back(name);
  return foreign;
}

/// Other files beside the weights are read by other programs: an index with shards, a pickle.
std::vector<std::string> other_files(const fs::path& folder) {
  std::vector<std::string> others;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name != "config.json" && name != "diffusion_pytorch_model.safetensors")
      others.push_back(name);
  }
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

RunCheck check_weights(const LedgerSummary& ledger, const Json& card, const fs::path& run) {
  const std::string name = "weights";
  const fs::path folder = run / "release" / "unet";
  if (!fs::is_directory(folder)) return not_checked(name, "release/ holds none");
  constexpr const char* kRemedy =
      "put back what belongs together, or `sfumato train --resume` releases again";
  const std::string found = weights_sha256(folder);
  std::vector<std::string> problems;
  const auto problem = [&](const std::string& text) {
    problems.push_back(fmt::format("'{}': {}; {}", folder.string(), text, kRemedy));
  };
  if (card.value("weights_sha256", Json()) != found)
    problem(fmt::format("the SHA-256 of the weights is {}, and the card was written for {}", found,
                        card.value("weights_sha256", Json()).dump()));
  const bool noted = !ledger.released_weights.empty();
  if (noted && ledger.released_weights != found)
    problem(fmt::format("the SHA-256 of the weights is {}, and the ledger notes {} as released",
                        found, ledger.released_weights));
  if (!noted && ledger.initial_weights)  // whose version notes every release
    problem("the ledger notes no release: lines were removed, or the weights are not this run's");
  const auto checkpoint = last_checkpoint(ledger, run);
  if (checkpoint)
    if (const auto foreign = foreign_tensors(*checkpoint, folder); !foreign.empty())
      problem(fmt::format(
          "{} tensors are not those of the average in the last checkpoint, which the ledger notes "
          "('{}', ...)",
          foreign.size(), foreign.front()));
  for (const std::string& other : other_files(folder))
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

std::string report_defect(const Json& card, const fs::path& page, const MechanismPlan& plan) {
  if (!fs::exists(page)) return {};
  const std::string text = read_file(page);
  const auto refuse = [&](const std::string& defect) {
    return fmt::format("'{}' {}; `sfumato train --resume` writes it again", page.string(), defect);
  };
  std::string expected = release_page(card, "settings: go here");
  // Its settings are looked at by themselves; the version that wrote it is the card's.
  constexpr const char* kSettings = "<h2>Settings</h2>\n<pre>";
  const auto there = between(text, kSettings, "</pre>"),
             here = between(expected, kSettings, "</pre>");
  if (!there || !here) return refuse("is not the page of a release");
  const std::string shown = text.substr(there->begin, there->end - there->begin);
  expected.replace(here->begin, here->end - here->begin, shown);
  const std::string writer =
      fmt::format("sfumato {} ({})", code_of(card, "version"), code_of(card, "commit"));
  if (const auto footer = between(expected, "<footer>Written by ", ".</footer>"))
    expected.replace(footer->begin, footer->end - footer->begin, html_escape(writer));
  if (expected != text) return refuse("does not say what the card beside it says");
  const std::string yaml = unescaped(shown);
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
