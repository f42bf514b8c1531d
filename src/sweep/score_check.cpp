#include "sweep/score_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "sfumato/core/place.h"
#include "sfumato/data/holdout.h"
#include "sfumato/data/store_manifest.h"
#include "sfumato/run/store_notes.h"
#include "sfumato/sweep/sweep_plan.h"

namespace sfumato {
namespace {

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

/// Whether a path leads into a private/ of a run or a sweep. What is only called so, such as a
/// folder above the whole project, is none.
bool leads_into_private(const fs::path& given, const fs::path& place) {
  // Of a relative one nobody knows from where: a shell may have gone elsewhere.
  if (given.is_relative() && std::ranges::find(given, fs::path("private")) != given.end())
    return true;
  const fs::path sweeps = resolved(sweep_folder("s").parent_path());
  fs::path above;
  for (const fs::path& piece : place) {
    if (piece == "private") {
      if (lies_within(above, sweeps)) return true;
      std::error_code ignored;
      for (const char* file : {"ledger.jsonl", "config.yaml", "plan.jsonl"})
        if (fs::exists(above / file, ignored)) return true;
    }
    above /= piece;
  }
  return false;
}

/// Whether a path is, or leads into, a folder that holds prepared images, whoever's they are.
bool leads_into_store(fs::path place) {
  for (; place.has_relative_path(); place = place.parent_path())
    if (is_record_store(place)) return true;
  return false;
}

/// Whether a path leads into what a split makes of the store: STORE-tuning-..., STORE-final-....
bool leads_into_part(const fs::path& path, const fs::path& store) {
  const fs::path beside = store.parent_path();
  if (!lies_within(path, beside) || path == beside) return false;
  const fs::path piece = *std::next(path.begin(), std::distance(beside.begin(), beside.end()));
  return is_called_part(piece.string(), store.filename().string());
}

/// Which of the base's own images a path leads to; "" for none.
std::string images_at(const fs::path& place, const Config& base) {
  for (const auto* setting : {&base.data.store, &base.data.source}) {
    // Of a pattern, the folder before it.
    const std::string& set = (*setting)();
    fs::path images = set.substr(0, set.find_first_of("*?{"));
    if (images.string() != set) images = images.parent_path();
    if (!images.empty() && lies_within(place, resolved(images))) return setting->key();
  }
  const std::string& store = base.data.store();
  if (store.empty()) return {};
  if (lies_within(place, resolved(holdout_store(store)))) return "what data.store held out";
  if (leads_into_part(place, resolved(store))) return "a part of data.store";
  return {};
}

/// Where a word of the score's command leads that it must not look at; "" if nowhere, as far as
/// words tell.
std::string forbidden_place(const std::string& word, const Config& base) {
  if (word.find("{run}") != std::string::npos) return "{run}, which holds exact private numbers";
  for (const std::string& part : paths_in(word)) {
    if (part.find('{') != std::string::npos) {
      if (part.find("..") != std::string::npos) return "a folder above what it is given";
      continue;
    }
    const fs::path place = resolved(part);
    if (leads_into_private(part, place)) return fmt::format("'{}', inside a private/", part);
    if (const std::string images = images_at(place, base); !images.empty())
      return fmt::format("'{}', inside {}", part, images);
    if (leads_into_store(place)) return fmt::format("'{}', inside a record store", part);
  }
  return {};
}

}  // namespace

void check_score(const SweepFile& file, std::vector<std::string>& mistakes) {
  const SweepSettings& sweep = file.settings->sweep;
  if (file.purpose() == SweepPurpose::kPublicTuning || sweep.score().empty()) return;
  const std::string purpose = to_string(file.purpose());
  if (!sweep.score_is_public())
    mistakes.push_back(fmt::format(
        "{}: sweep.score_is_public is missing: what the runs of the purpose {} cost covers a score "
        "where its command looks at {{release}} and {{corpus}} and at public data alone, which "
        "nothing here can check. Set it to true if that is so",
        sweep.score.provenance(), purpose));
  const auto base = parse_config(settings_yaml(Config(), file.base), "the base");
  for (const std::string& word : sweep.score())
    if (const std::string place = forbidden_place(word, *base); !place.empty())
      mistakes.push_back(fmt::format(
          "{}: sweep.score names {}; of the purpose {} it may look at {{release}}, {{corpus}} and "
          "public data alone (as files that are no record store)",
          sweep.score.provenance(), place, purpose));
}

}  // namespace sfumato
