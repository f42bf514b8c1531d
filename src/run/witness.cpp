#include "sfumato/run/witness.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "run/witness_folder.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/log.h"
#include "sfumato/core/place.h"
#include "sfumato/core/text.h"
#include "sfumato/io/json_file.h"
#include "sfumato/run/run_directory.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

constexpr const char* kKind = "sfumato use of a record store";
constexpr int kSchemaVersion = 1;

fs::path witness_path(const fs::path& store, const std::string& run_id) {
  return witness_folder(store) / (run_id + ".json");
}

Witness parse_witness(const fs::path& path) {
  const auto refuse = [&](const std::string& defect) {
    throw DataError(
        fmt::format("'{}' {}: what the run has charged is uncertain; put the file "
                    "back, or remove it to go on without this witness",
                    path.string(), defect));
  };
  const nlohmann::json content = read_json(path);
  Witness witness;
  witness.file = path;
  try {
    if (content.at("kind") != kKind || content.at("schema_version") != kSchemaVersion)
      refuse("is no witness of a run, or one of a newer version");
    witness.run_id = content.at("run").get<std::string>();
    witness.updated = content.at("updated").get<std::string>();
    witness.place = content.at("place").get<std::string>();
    try {
      witness.plan = MechanismPlan::from_json(content.at("plan"));
    } catch (const DataError& error) {
      refuse(fmt::format("is damaged ({})", error.what()));
    }
    witness.lines = content.at("lines").get<std::int64_t>();
    witness.head = content.at("head").get<std::string>();
    witness.charged_steps = content.at("charged_steps").get<std::int64_t>();
    if (content.contains("reserved_steps"))
      witness.reserved_steps = content["reserved_steps"].get<std::int64_t>();
    if (content.contains("stages")) content["stages"].get_to(witness.stage_charges);
    if (content.contains("trail"))
      for (const nlohmann::json& point : content["trail"])
        witness.trail.push_back({point.at(0).get<std::int64_t>(), point.at(1).get<std::string>(),
                                 point.at(2).get<std::int64_t>(), point.at(3).get<std::int64_t>()});
    witness.stopped = content.at("state").get<std::string>() == "stopped";
    witness.insecure = content.at("insecure").get<bool>();
    if (content.at("plan_hash") != witness.plan.hash())
      refuse("was edited (plan and plan_hash differ)");
  } catch (const nlohmann::json::exception& error) {
    refuse(fmt::format("is damaged ({})", error.what()));
  }
  if (witness.run_id != path.stem().string()) refuse("is the witness of another run");
  const bool possible =
      witness.lines >= 1 && witness.charged_steps >= 0 &&
      witness.reserved_steps.value_or(witness.charged_steps) >= witness.charged_steps &&
      std::ranges::all_of(witness.trail, [&](const WitnessPoint& point) {
        return point.lines >= 1 && point.lines <= witness.lines && point.charged_steps >= 0 &&
               point.charged_steps <= witness.charged_steps;
      });
  if (!possible) refuse("was edited (impossible counts)");
  return witness;
}

}  // namespace

std::vector<Witness> read_witnesses(const fs::path& store) {
  std::vector<Witness> witnesses;
  for (const fs::path& file : json_files_in(witness_folder(store)))
    witnesses.push_back(parse_witness(file));
  return witnesses;
}

std::optional<Witness> read_witness(const fs::path& store, const std::string& run_id) {
  const fs::path path = witness_path(store, run_id);
  if (!fs::exists(path)) return std::nullopt;
  return parse_witness(path);
}

std::string contradiction(const Witness& witness, const LedgerSummary& ledger) {
  const std::string known =
      fmt::format("'{}' remembers {} charged steps in {} lines ({})", witness.file.string(),
                  witness.charged_steps, witness.lines, witness.updated);
  constexpr const char* kRemedy =
      "put the newest copy of the run back, or start a new run, whose budget comes on top of what "
      "was spent";
  const std::string remedy_of_older = fmt::format(
      "put the newest copy of the run back, or go on with this one: {} charges what it "
      "has forgotten first",
      resume_command(ledger.path.parent_path()));
  // The ledger has charged all that this witness knows, but a crash came before the next one.
  if (std::ranges::find(ledger.settled_heads, witness.head) != ledger.settled_heads.end())
    return {};
  if (witness.plan.hash() != ledger.plan_hash)
    return fmt::format("{}, under another mechanism than the ledger '{}' holds; {}", known,
                       ledger.path.string(), kRemedy);
  if (witness.lines > ledger.lines)
    return fmt::format(
        "{}, but the ledger '{}' holds only {} in {} lines: it is an older copy, which has "
        "forgotten {} charged steps; {}",
        known, ledger.path.string(), ledger.charged_steps, ledger.lines,
        std::max<std::int64_t>(witness.charged_steps - ledger.charged_steps, 0), remedy_of_older);
  const LedgerPoint& point = ledger.history.at(static_cast<std::size_t>(witness.lines - 1));
  if (point.hash != witness.head)
    return fmt::format(
        "{}, of which the ledger '{}' lacks the last: two copies of this run went on separately, "
        "and neither ledger holds what the other has charged; go on with the copy that the "
        "witness knows ('{}'), or start a new run, whose budget comes on top of what both have "
        "spent",
        known, ledger.path.string(), witness.place);
  if (point.charged_steps != witness.charged_steps)
    return fmt::format(
        "{}, but at that line the ledger '{}' has charged {}: the witness was edited; "
        "put it back as it was",
        known, ledger.path.string(), point.charged_steps);
  return {};
}

namespace {

/// Of the stages that a run makes itself, by name.
std::map<std::string, std::int64_t> planned_releases(const MechanismPlan& plan) {
  std::map<std::string, std::int64_t> planned;
  for (const StagePlan& stage : plan.stages)
    if (const std::optional<Phase> phase = stage.executed()) planned[stage.name] = phase->steps;
  return planned;
}

/// Those of the witness's points that are lines of the ledger as well. PrivacyError where they
/// count other charges.
std::vector<WitnessPoint> shared_trail(const Witness& witness, const LedgerSummary& ledger) {
  std::vector<WitnessPoint> shared;
  for (const WitnessPoint& point : witness.trail) {
    if (point.lines > ledger.lines) break;
    const LedgerPoint& here = ledger.history.at(static_cast<std::size_t>(point.lines - 1));
    if (here.hash != point.head) break;
    if (here.charged_steps != point.charged_steps || here.stage_releases != point.stage_releases)
      throw PrivacyError(fmt::format(
          "'{}' counts other charges at line {} than the ledger '{}': it was edited; put "
          "it back as it was",
          witness.file.string(), point.lines, ledger.path.string()));
    shared.push_back(point);
  }
  return shared;
}

/// Whether the ledger lies where the witness saw the run.
bool is_in_place(const Witness& witness, const LedgerSummary& ledger) {
  const fs::path here = without_slash(fs::absolute(ledger.path)).parent_path();
  const fs::path there = without_slash(witness.place);
  std::error_code ignored;
  return here == there || fs::equivalent(here, there, ignored);  // through links
}

/// What a run that was last heard of running at another place may have charged there and this
/// ledger, which holds all that the witness knows, does not: the rest of what was reserved. What
/// the same session charged after the witness is in both, since no copy charges in a session that
/// is not its own.
std::optional<ForgottenCharges> charged_elsewhere(const Witness& witness,
                                                  const LedgerSummary& ledger) {
  const std::int64_t session =
      ledger.history.at(static_cast<std::size_t>(witness.lines - 1)).session;
  std::int64_t charged = witness.charged_steps;
  bool is_last = true;
  for (std::size_t i = static_cast<std::size_t>(witness.lines); i < ledger.history.size(); ++i) {
    is_last = ledger.history[i].session == session;
    if (!is_last) break;
    charged = ledger.history[i].charged_steps;
  }
  if (is_last) charged = ledger.charged_steps;  // with a torn line
  ForgottenCharges forgotten;
  forgotten.witness_head = witness.head;
  forgotten.steps = std::max<std::int64_t>(*witness.reserved_steps - charged, 0);
  const auto limits = planned_releases(witness.plan);
  for (const auto& [name, noted] : witness.stage_charges) {
    const auto limit = limits.find(name);
    const auto own = ledger.stage_charges.find(name);
    const std::int64_t known = is_last && own != ledger.stage_charges.end() ? own->second : noted;
    if (limit != limits.end() && limit->second > known)
      forgotten.stages[name] = limit->second - known;
  }
  if (forgotten.steps == 0 && forgotten.stages.empty()) return std::nullopt;
  return forgotten;
}

[[noreturn]] void refuse_unknown(const fs::path& store, const LedgerSummary& ledger) {
  throw PrivacyError(fmt::format(
      "'{}' does not remember the run in '{}' (uses/{}.json is not there): a copy of the run could "
      "release the same once more, and nobody would add the two up; put the file back, or name the "
      "record store that the run was trained on",
      store.string(), ledger.path.parent_path().string(), ledger.run_id));
}

/// Of a run that was copied together with its store neither knows what the other two release.
void refuse_copied_store(const Witness& witness, const LedgerSummary& ledger) {
  if (is_in_place(witness, ledger)) return;
  const fs::path other = fs::path(witness.place) / "ledger.jsonl";
  if (!fs::exists(other) || verify_ledger(other).run_id != ledger.run_id) return;
  throw PrivacyError(fmt::format(
      "'{}' remembers this run in '{}', where it still lies, and not in '{}', which is a copy of "
      "it: both could release the same, each unknown to the other, where the record store was "
      "copied as well; release it in '{}', or move that run instead of copying it",
      witness.file.string(), witness.place, ledger.path.parent_path().string(), witness.place));
}

/// Enough to find where a copy left the run; of the older ones every second goes first.
void add_to_trail(std::vector<WitnessPoint>& trail, WitnessPoint point) {
  constexpr std::size_t kMostPoints = 128;
  if (trail.empty() || trail.back().lines < point.lines) trail.push_back(std::move(point));
  if (trail.size() <= kMostPoints) return;
  std::vector<WitnessPoint> thinned;
  for (std::size_t i = 0; i < trail.size(); ++i)
    if (i % 2 == 0 || i > trail.size() / 2) thinned.push_back(std::move(trail[i]));
  trail = std::move(thinned);
}

}  // namespace

std::optional<ForgottenCharges> forgotten_charges(const Witness& witness,
                                                  const LedgerSummary& ledger) {
  const bool settled =
      std::ranges::find(ledger.settled_heads, witness.head) != ledger.settled_heads.end();
  if (settled || witness.plan.hash() != ledger.plan_hash) return std::nullopt;
  const std::string known = contradiction(witness, ledger);
  const bool is_ahead = witness.lines <= ledger.lines;
  if (is_ahead && (!known.empty() || witness.stopped || is_in_place(witness, ledger)))
    return std::nullopt;
  if (!witness.stopped && !witness.reserved_steps)
    throw PrivacyError(fmt::format(
        "{}. That cannot be done here: the run was still training when an older "
        "version wrote '{}', and may have charged anything since",
        is_ahead ? fmt::format("'{}' was last heard of running in '{}'; put it back there to go on",
                               ledger.path.string(), witness.place)
                 : known,
        witness.file.string()));
  if (is_ahead) return charged_elsewhere(witness, ledger);
  // What the copy charged after the last line that both are known to have nobody else may know.
  const std::vector<WitnessPoint> shared = shared_trail(witness, ledger);
  const WitnessPoint common = shared.empty() ? WitnessPoint() : shared.back();
  ForgottenCharges forgotten;
  forgotten.witness_head = witness.head;
  const std::int64_t known_steps =
      witness.stopped ? witness.charged_steps : *witness.reserved_steps;
  forgotten.steps = known_steps - common.charged_steps;
  const bool same_stages = ledger.history.back().stage_releases == common.stage_releases;
  const auto limits = planned_releases(witness.plan);
  for (const auto& [name, charged] : witness.stage_charges) {
    // One that had begun may have gone on to its end.
    const auto limit = limits.find(name);
    const std::int64_t most =
        witness.stopped || limit == limits.end() ? charged : std::max(charged, limit->second);
    const auto own = ledger.stage_charges.find(name);
    const std::int64_t counted = same_stages && own != ledger.stage_charges.end() ? own->second : 0;
    if (most > counted) forgotten.stages[name] = most - counted;
  }
  return forgotten;
}

WitnessKeeper::WitnessKeeper(fs::path store, WitnessDuty duty)
    : store_(std::move(store)), duty_(duty) {
  try {
    check_witness_folder(store_);
    writable_ = true;
  } catch (const DataError& error) {
    if (refuses()) cannot_write(error);
    log_warning(
        fmt::format("the record store keeps no witness of this run ({}): a copy of the run "
                    "that forgets what was charged could not be told; the ledger says so",
                    error.what()));
  }
}

WitnessKeeper::~WitnessKeeper() = default;

void WitnessKeeper::hold(const std::string& run_id) {
  try {
    if (!lock_) lock_ = std::make_unique<UseLock>(store_, run_id);
  } catch (const DataError& error) {
    cannot_write(error);
  }
}

void WitnessKeeper::cannot_write(const std::exception& error) {
  const bool goes_on = duty_ == WitnessDuty::kWarns;
  if (!goes_on)
    throw PrivacyError(fmt::format(
        "the record store '{}' cannot remember what would be released now ({}), so that a copy of "
        "the run could release it once more, and nobody would add the two up: nothing is "
        "released; let uses/ of the record store be written",
        store_.string(), error.what()));
  writable_ = false;
  log_warning(
      fmt::format("the record store keeps the witness of this run no longer: {}", error.what()));
}

std::optional<ForgottenCharges> WitnessKeeper::check(const LedgerSummary& ledger) {
  if (!ledger.problems.empty()) return std::nullopt;  // opening it says what is wrong
  if (refuses()) hold(ledger.run_id);
  const auto witness = read_witness(store_, ledger.run_id);
  if (!witness && refuses()) refuse_unknown(store_, ledger);
  if (!witness && was_witnessed(ledger))
    log_warning(fmt::format(
        "the record store '{}' has no witness of run {}, although the run kept one: it was "
        "removed, or the store is a copy. Whether this ledger is an older copy that has forgotten "
        "charges can no longer be told; go on only if you know that it is the newest",
        store_.string(), ledger.run_id));
  if (!witness) return std::nullopt;
  const std::string found = contradiction(*witness, ledger);
  std::optional<ForgottenCharges> forgotten = forgotten_charges(*witness, ledger);
  if (!found.empty() && !forgotten) throw PrivacyError(found);
  if (refuses()) refuse_copied_store(*witness, ledger);
  last_head_ = witness->head;
  trail_ = shared_trail(*witness, ledger);
  return forgotten;
}

void WitnessKeeper::write(const Ledger& ledger, const fs::path& run_folder, bool stopped) {
  if (!writable_) return;
  if (refuses()) hold(ledger.run_id());
  try {
    const auto there = read_witness(store_, ledger.run_id());
    if (!there && refuses() && !last_head_.empty())
      throw DataError("the witness that was there is gone");
    if (there && there->head != last_head_)
      if (const std::string found = contradiction(*there, verify_ledger(ledger.path()));
          !found.empty())
        throw PrivacyError(found);
  } catch (const DataError& error) {
    cannot_write(error);
    return;
  }
  const auto now = std::chrono::steady_clock::now();
  const std::int64_t charged = ledger.charged_steps();
  reserved_ = charged;
  if (!stopped && last_charged_ >= 0) {
    // As many as it will charge in the time until the next one, so that fast steps need not wait
    // for a witness each.
    const std::chrono::duration<double> since = now - last_time_;
    const std::chrono::duration<double> interval = kWriteInterval;
    const double ahead = static_cast<double>(charged - last_charged_) *
                         (interval / std::max(since, interval / 1000));
    reserved_ = std::min(ledger.max_charged_steps(), charged + static_cast<std::int64_t>(ahead));
  }
  std::int64_t stage_releases = 0;
  for (const auto& [name, releases] : ledger.stage_charges()) stage_releases += releases;
  add_to_trail(trail_, {ledger.lines(), ledger.head_hash(), charged, stage_releases});
  nlohmann::ordered_json points = nlohmann::ordered_json::array();
  for (const WitnessPoint& point : trail_)
    points.push_back({point.lines, point.head, point.charged_steps, point.stage_releases});
  const nlohmann::ordered_json content = {
      {"kind", kKind},
      {"schema_version", kSchemaVersion},
      {"run", ledger.run_id()},
      {"place", fs::absolute(run_folder).lexically_normal().string()},
      {"updated", utc_now()},
      {"state", stopped ? "stopped" : "running"},
      {"lines", ledger.lines()},
      {"head", ledger.head_hash()},
      {"charged_steps", charged},
      {"reserved_steps", reserved_},
      {"stages", ledger.stage_charges()},
      {"trail", points},
      {"insecure", ledger.insecure()},
      {"plan_hash", ledger.plan_hash()},
      {"plan", nlohmann::ordered_json::parse(ledger.plan())}};
  try {
    write_json_atomic(witness_path(store_, ledger.run_id()), content, -1, 0600);
    last_head_ = ledger.head_hash();
    last_charged_ = charged;
    last_stages_ = ledger.stage_charges().size();
    last_time_ = now;
  } catch (const DataError& error) {
    cannot_write(error);
  }
}

void WitnessKeeper::write_if_due(const Ledger& ledger, const fs::path& run_folder) {
  const bool covered =
      ledger.charged_steps() <= reserved_ && ledger.stage_charges().size() <= last_stages_;
  if (refuses() || !covered || std::chrono::steady_clock::now() - last_time_ >= kWriteInterval)
    write(ledger, run_folder, /*stopped=*/false);
}

bool was_witnessed(const LedgerSummary& ledger) {
  return std::any_of(ledger.sessions.begin(), ledger.sessions.end(),
                     [](const LedgerSession& session) { return session.witnessed; });
}

}  // namespace sfumato
