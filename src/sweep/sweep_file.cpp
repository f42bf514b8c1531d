#include "sfumato/sweep/sweep_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sweep/sweep_axes.h"

namespace sfumato {
namespace {

bool is_sweep_name(const std::string& name) {
  return !name.empty() && name.size() <= 100 && name.front() != '-' &&
         std::ranges::all_of(name, [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '-' || c == '_';
         });
}

namespace fs = std::filesystem;

/// What of a word of a command may be a path: all that stands between the marks of a shell.
std::vector<std::string> paths_in(const std::string& word) {
  constexpr const char* kMarks = " \t\r\n'\"=;:,|&<>()";
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin < word.size();) {
    const std::size_t end = std::min(word.find_first_of(kMarks, begin), word.size());
    if (end > begin) parts.push_back(word.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

bool lies_in_folder(const fs::path& path, const fs::path& folder) {
  return std::mismatch(folder.begin(), folder.end(), path.begin(), path.end()).first ==
         folder.end();
}

/// Where a word of the score's command leads that it must not look at; "" if nowhere, as far as
/// words tell.
std::string forbidden_place(const std::string& word, const SettingValues& base) {
  if (word.find("{run}") != std::string::npos) return "{run}, which holds exact private numbers";
  std::error_code ignored;
  const auto given = parse_config(settings_yaml(Config(), base), "the base");
  for (const std::string& part : paths_in(word)) {
    if (part.find('{') != std::string::npos) {
      if (part.find("..") != std::string::npos) return "a folder above what it is given";
      continue;
    }
    const fs::path path = fs::weakly_canonical(part, ignored);
    for (const fs::path& piece : path)
      if (piece == "private") return fmt::format("'{}', inside a private/", part);
    for (const auto* setting : {&given->data.store, &given->data.source}) {
      // Of a pattern, the folder before it.
      const std::string& set = (*setting)();
      fs::path place = set.substr(0, set.find_first_of("*?{"));
      if (place.string() != set) place = place.parent_path();
      if (!place.empty() && lies_in_folder(path, fs::weakly_canonical(place, ignored)))
        return fmt::format("'{}', inside {}", part, setting->key());
    }
  }
  return {};
}

/// A selection's claim holds for scores of what runs release. Words show what is plainly none; the
/// rest is the word of whoever wrote the file.
void check_score(const SweepFile& file, std::vector<std::string>& mistakes) {
  const SweepSettings& sweep = file.settings->sweep;
  if (file.purpose() != SweepPurpose::kPrivateSelection || sweep.score().empty()) return;
  if (!sweep.score_is_public())
    mistakes.push_back(fmt::format(
        "{}: sweep.score_is_public is missing: the best run of a private_selection is covered "
        "where "
        "the score's command looks at {{release}} and {{corpus}} and at public data alone, which "
        "nothing here can check. Set it to true if that is so",
        sweep.score.provenance()));
  for (const std::string& word : sweep.score())
    if (const std::string place = forbidden_place(word, file.base); !place.empty())
      mistakes.push_back(fmt::format(
          "{}: sweep.score names {}; of a private_selection it may look at {{release}}, {{corpus}} "
          "and public data alone",
          sweep.score.provenance(), place));
}

/// What a private selection needs, and others have no use for.
template <typename Add>
void check_selection_settings(const SweepFile& file, const Add& add) {
  const SweepSelectionSettings& selection = file.settings->selection;
  if (file.purpose() != SweepPurpose::kPrivateSelection) {
    for (const SettingBase* setting : selection.settings())
      if (!setting->is_default())
        add(*setting,
            fmt::format("{} has no use but for the purpose private_selection", setting->key()));
    return;
  }
  const SweepSettings& sweep = file.settings->sweep;
  if (selection.mean_runs() < 1)
    add(selection.mean_runs,
        "sweep.selection.mean_runs is missing: how many runs there are on average, at least 1");
  if (sweep.score().empty())
    add(sweep.score,
        "sweep.score is missing: by what the best run of a private_selection is known");
  if (sweep.repeat() > 1)
    add(sweep.repeat,
        "sweep.repeat has no use in a private_selection, whose law says how many runs there are");
}

void check_sweep_settings(const SweepFile& file, std::vector<std::string>& mistakes) {
  const SweepSettings& sweep = file.settings->sweep;
  const auto add = [&](const SettingBase& setting, const std::string& message) {
    mistakes.push_back(fmt::format(
        "{}: {}", setting.is_default() ? file.path.string() : setting.provenance(), message));
  };
  if (!is_sweep_name(sweep.name()))
    add(sweep.name, fmt::format("sweep.name must be letters, digits, '-' and '_', got '{}'; it "
                                "names the folder sweeps/NAME",
                                sweep.name()));
  if (sweep.purpose.is_default())
    add(sweep.purpose,
        "sweep.purpose is missing, which decides what may be seen of the runs and what they cost; "
        "it is " +
            sweep.purpose.range().describe());
  if (sweep.base().empty())
    add(sweep.base, "sweep.base is missing: the configuration that all runs have in common");
  check_selection_settings(file, add);
  if (!sweep.tuning_share.is_default() && file.purpose() != SweepPurpose::kDisjointSplit)
    add(sweep.tuning_share, "sweep.tuning_share has no use but for the purpose disjoint_split");
}

/// Every run of a selection has it in its mechanism, and only those.
void tell_selection(SweepFile& file, std::vector<std::string>& mistakes) {
  for (const auto& [key, value] : file.base)
    if (key.starts_with("mechanism.selection."))
      mistakes.push_back(
          fmt::format("{}: {} is set by the sweep, for the purpose private_selection "
                      "(sweep.selection); leave it out of the base",
                      file.settings->sweep.base(), key));
  if (file.purpose() != SweepPurpose::kPrivateSelection) return;
  const SweepSelectionSettings& selection = file.settings->selection;
  file.base["mechanism.selection.mean_runs"] = selection.mean_runs.value_yaml();
  file.base["mechanism.selection.law"] = selection.law.value_yaml();
  if (selection.law() == SelectionFamily::kNegativeBinomial)
    file.base["mechanism.selection.eta"] = selection.eta.value_yaml();
}

/// The base's own mistakes come with its own name and lines.
void read_base(SweepFile& file, std::vector<std::string>& mistakes) {
  const std::string& base = file.settings->sweep.base();
  if (base.empty()) return;
  try {
    file.base = given_settings(*load_config(base, {}));
    tell_selection(file, mistakes);
    const auto candidates = file.base.find("mechanism.candidates");
    if (candidates != file.base.end() && candidates->second != "1")
      mistakes.push_back(
          fmt::format("{}: mechanism.candidates is {}, and a sweep counts its runs itself; set it "
                      "to 1",
                      base, candidates->second));
  } catch (const UsageError& error) {
    mistakes.push_back(error.what());
  }
}

}  // namespace

SweepSettings::SweepSettings(SettingsTree* tree)
    : Section(tree, "sweep", "Many runs from one file, planned once and frozen.") {}

SweepSelectionSettings::SweepSelectionSettings(SettingsTree* tree)
    : Section(tree, "sweep.selection", "Of a private_selection: how many runs, by which law.") {}

SweepFile read_sweep_file(const std::filesystem::path& path) {
  SweepFile file;
  file.path = path;
  file.settings = std::make_shared<SweepConfig>();
  std::vector<std::string> mistakes;
  try {
    mistakes = file.settings->read_yaml(read_file(path), path.string());
  } catch (const DataError& error) {
    throw UsageError(error.what());
  }
  check_sweep_settings(file, mistakes);
  read_base(file, mistakes);
  if (mistakes.empty()) check_score(file, mistakes);
  read_axes(file, mistakes);
  if (!mistakes.empty()) throw UsageError(fmt::format("{}", fmt::join(mistakes, "\n")));
  return file;
}

std::string documented_sweep_yaml() { return base_yaml(SweepConfig()); }

}  // namespace sfumato
