#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "ledger_line.h"
#include "sfumato/core/file.h"
#include "sfumato/core/sha256.h"

namespace sfumato {
namespace {

using json = nlohmann::ordered_json;

constexpr std::string_view kSealBegin = ",\"sha256\":\"";
constexpr std::string_view kSealEnd = "\"}";
constexpr std::size_t kSealSize = kSealBegin.size() + 64 + kSealEnd.size();
/// No line of a ledger comes near; writing out what is nested without end would end the program.
constexpr int kMaxDepth = 64;

bool nested_too_deeply(std::string_view text) {
  int depth = 0;
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted && c == '\\') ++i;
    if (c == '"') quoted = !quoted;
    if (quoted) continue;
    if (c == '[' || c == '{') ++depth;
    if (c == ']' || c == '}') --depth;
    if (depth > kMaxDepth) return true;
  }
  return false;
}

/// Follows a ledger line by line, as the writer did.
class Reader {
 public:
  Reader(const std::filesystem::path& path, const std::string& expected_head)
      : expected_head_(expected_head), head_seen_(expected_head.empty()) {
    found_.path = path;
    found_.head_hash = kNoPrevious;
  }

  LedgerSummary read(std::string_view bytes) {
    while (!bytes.empty()) {
      const std::size_t newline = bytes.find('\n');
      if (newline == std::string_view::npos && !seal_holds(bytes)) {
        found_.torn_bytes = static_cast<std::int64_t>(bytes.size());
        break;
      }
      line(bytes.substr(0, newline));
      bytes.remove_prefix(newline == std::string_view::npos ? bytes.size() : newline + 1);
    }
    if (found_.lines == 0)
      found_.problems.push_back(
          "it has no complete first line: nothing was charged; delete the file and start anew");
    if (!head_seen_)
      found_.problems.push_back(fmt::format(
          "no line has the SHA-256 {} that was noted elsewhere: lines were removed from the end, "
          "or it is the ledger of another run",
          expected_head_));
    return std::move(found_);
  }

 private:
  void problem(const std::string& text) {
    found_.problems.push_back(fmt::format("line {}: {}", found_.lines, text));
  }

  std::int64_t integer(const json& object, const char* name) {
    const auto at = object.find(name);
    if (at != object.end() && at->is_number_integer() &&
        std::abs(at->get<double>()) <= 9007199254740992.0)  // 2^53: no count comes near
      return at->get<std::int64_t>();
    problem(fmt::format("'{}' is missing or no integer", name));
    return -1;
  }

  std::string text(const json& object, const char* name) {
    const auto at = object.find(name);
    if (at != object.end() && at->is_string()) return at->get<std::string>();
    problem(fmt::format("'{}' is missing or no text", name));
    return {};
  }

  void line(std::string_view bytes) {
    ++found_.lines;
    if (!seal_holds(bytes)) problem("was edited or damaged: its own SHA-256 does not match");
    const json object =
        nested_too_deeply(bytes) ? json() : json::parse(bytes, nullptr, /*allow_exceptions=*/false);
    if (!object.is_object()) {
      problem("is not a JSON object");
    } else {
      if (text(object, "previous") != found_.head_hash)
        problem(fmt::format("does not follow line {}: lines were edited, removed or moved",
                            found_.lines - 1));
      if (integer(object, "line") != found_.lines) problem("has another line's number");
      content(object);
    }
    found_.head_hash = sha256_hex(bytes);
    if (found_.head_hash == expected_head_) head_seen_ = true;
    found_.history.push_back({found_.head_hash, found_.charged_steps, checkpoint_step_, checkpoint_,
                              found_.charged_releases() - found_.charged_steps,
                              found_.last_event == "forgotten" || found_.sessions.empty()
                                  ? 0
                                  : found_.sessions.back().number});
  }

  void content(const json& object) {
    const std::string kind = text(object, "kind");
    checkpoint_step_ = -1;
    checkpoint_.clear();
    if ((kind == "create") != (found_.lines == 1))
      problem(found_.lines == 1 ? "is not the first line of a ledger" : "starts a second ledger");
    if (kind == "create") create(object);
    if (kind == "create" || kind == "resume") session(object);
    if (kind == "charge") charge(object);
    if (kind == "stage") stage(object);
    if (kind == "result") result(object);
    if (kind == "checkpoint") checkpoint(object);
    if (kind == "release") release(object);
    if (kind == "recovered") recovered(object);
    if (kind == "forgotten") forgotten(object);
    const std::string_view known[] = {"create",    "resume",    "charge", "stage",      "result",
                                      "recovered", "forgotten", "stop",   "checkpoint", "release"};
    if (std::find(std::begin(known), std::end(known), kind) == std::end(known))
      problem(fmt::format("is of the unknown kind '{}'; was a newer version used?", kind));
    found_.last_event = kind;
  }

  void create(const json& object) {
    if (integer(object, "format") != kLedgerFormat) problem("was written by a newer version");
    found_.run_id = text(object, "run");
    found_.created = text(object, "time");
    found_.version = text(object, "version");
    found_.git_commit = text(object, "git_commit");
    const auto plan = object.find("plan");
    found_.plan = plan == object.end() ? "{}" : plan_text(*plan);
    found_.plan_hash = text(object, "plan_hash");
    found_.max_charged_steps = integer(object, "max_charged_steps");
    if (found_.plan_hash != sha256_hex(found_.plan)) problem("plan and plan_hash do not agree");
    if (plan != object.end()) stage_limits_ = stage_limits(*plan);
    // Older versions did not write it: what such a run started from is not known.
    if (const auto initial = object.find("initial_weights"); initial != object.end())
      initial_weights(*initial);
    if (const auto folders = object.find("initial_folders"); folders != object.end())
      initial_folders(*folders);
    if (object.contains("data_manifest_hash")) {
      found_.data_manifest_hash = text(object, "data_manifest_hash");
      if (!is_sha256(found_.data_manifest_hash))
        problem("does not say on which record store the run trains (data_manifest_hash)");
    }
  }

  void initial_weights(const json& object) {
    InitialWeights initial;
    const auto origin = object.find("origin"), hash = object.find("sha256"),
               on_word = object.find("on_word");
    const bool whole = object.is_object() && object.size() == 3 && origin != object.end() &&
                       origin->is_string() && hash != object.end() && on_word != object.end() &&
                       on_word->is_boolean();
    if (whole) {
      initial.origin = origin->get<std::string>();
      if (hash->is_string()) initial.sha256 = hash->get<std::string>();
      initial.on_word = on_word->get<bool>();
    }
    const bool scratch = initial.origin == "scratch";
    const std::string_view known[] = {"scratch", "public", "not_private", "private"};
    if (!whole ||
        std::find(std::begin(known), std::end(known), initial.origin) == std::end(known) ||
        !(scratch ? hash->is_null() : is_sha256(initial.sha256)) ||
        // Somebody's word stands for what was trained without privacy, here or earlier.
        (initial.origin != "private" && initial.on_word != (initial.origin == "not_private")))
      return problem("does not say what the run started from (initial_weights)");
    found_.initial_weights = initial;
  }

  void initial_folders(const json& list) {
    bool whole = list.is_array() && !list.empty() && found_.initial_weights &&
                 found_.initial_weights->origin != "scratch";
    for (std::size_t i = 0; whole && i < list.size(); ++i) {
      whole = list[i].is_string() && is_released_name(list[i].get<std::string>());
      if (whole) found_.initial_weights->folders.push_back(list[i].get<std::string>());
    }
    if (!whole) problem("does not say where the weights lay that the run started from");
  }

  void release(const json& object) {
    ReleasedFiles released{text(object, "weights"), {}, {}};
    bool whole = is_sha256(released.weights);
    // Older versions noted the weights alone.
    if (object.contains("card_facts") || object.contains("files")) {
      released.card_facts = text(object, "card_facts");
      whole = whole && is_sha256(released.card_facts);
      const auto files = object.find("files");
      whole = whole && files != object.end() && files->is_object();
      if (whole)
        for (const auto& [name, hash] : files->items()) {
          whole = whole && is_released_name(name) && hash.is_string();
          released.files[name] = hash.is_string() ? hash.get<std::string>() : std::string();
          whole = whole && is_sha256(released.files[name]);
        }
    }
    if (!whole) problem("releases weights, facts or files without their SHA-256");
    if (const auto noted = object.find("by_discriminator"); noted != object.end()) {
      if (noted->is_boolean())
        released.by_discriminator = noted->get<bool>();
      else
        problem("does not say whether a discriminator was private (by_discriminator)");
    }
    found_.released = std::move(released);
  }

  void session(const json& object) {
    LedgerSession next;
    next.number = integer(object, "session");
    next.noise_key_id = text(object, "noise_key_id");
    next.started = text(object, "time");
    next.version = text(object, "version");
    next.git_commit = text(object, "git_commit");
    const auto insecure = object.find("insecure");
    next.insecure = insecure == object.end() || *insecure != json(false);
    const auto witness = object.find("witness");
    next.witnessed = witness == object.end() || *witness != json(false);
    if (next.number != static_cast<std::int64_t>(found_.sessions.size()) + 1)
      problem("its session number does not follow");
    for (const LedgerSession& earlier : found_.sessions)
      if (earlier.noise_key_id == next.noise_key_id)
        problem(fmt::format("uses the noise key of session {} again", earlier.number));
    session_last_step_ = -1;
    found_.sessions.push_back(next);
  }

  bool charges_running_session(const json& object) {
    const std::int64_t number = integer(object, "session");
    if (!found_.sessions.empty() && found_.sessions.back().number == number) return true;
    problem(fmt::format("charges session {}, which is not the one running", number));
    return false;
  }

  void charge(const json& object) {
    const std::int64_t step = integer(object, "step");
    if (charges_running_session(object)) ++found_.sessions.back().charged_steps;
    if (step <= session_last_step_)
      problem(fmt::format("charges step {} again or out of order in one session", step));
    session_last_step_ = std::max(session_last_step_, step);
    found_.last_optimizer_step = std::max(found_.last_optimizer_step, step);
    count(integer(object, "charged"), found_.charged_steps + 1);
  }

  void stage(const json& object) {
    charges_running_session(object);
    const std::string name = text(object, "stage");
    count_stage(name, integer(object, "release"), found_.stage_charges[name] + 1);
  }

  void result(const json& object) {
    const std::string name = text(object, "stage"), hash = text(object, "result");
    if (!is_sha256(hash)) problem(fmt::format("the result of the stage '{}' is no SHA-256", name));
    const auto limit = stage_limits_.find(name);
    const auto charged = found_.stage_charges.find(name);
    if (limit == stage_limits_.end())
      problem(fmt::format("has a result of the stage '{}', which the plan does not know", name));
    else if (charged == found_.stage_charges.end() || charged->second < limit->second)
      problem(fmt::format("has a result of the stage '{}' before its last charge", name));
    if (!found_.stage_results.emplace(name, hash).second)
      problem(fmt::format("has a second result of the stage '{}'", name));
  }

  void checkpoint(const json& object) {
    const auto weights = object.find("checkpoint");
    if (weights != object.end() && weights->is_string()) checkpoint_ = weights->get<std::string>();
    const auto step = object.find("step");
    if (step != object.end() && step->is_number_integer())
      checkpoint_step_ = step->get<std::int64_t>();
  }

  void recovered(const json& object) {
    ++found_.recoveries;
    const ChargesAfterTear after = count_torn_line(found_, stage_limits_);
    count(integer(object, "charged"), after.charged_steps);
    const auto stages = object.find("stages");
    const json said = stages != object.end() && stages->is_object() ? *stages : json::object();
    for (const auto& [name, charged] : after.stages)
      count_stage(name, said.contains(name) ? integer(said, name.c_str()) : 0, charged);
  }

  /// What a copy was told that others charged: taken as said, and never less than is counted.
  void forgotten(const json& object) {
    found_.settled_heads.push_back(text(object, "witness"));
    if (!is_sha256(found_.settled_heads.back())) problem("does not say what was forgotten");
    const std::int64_t said = integer(object, "charged"), before = found_.charged_steps;
    count(said, std::max(said, before));
    found_.forgotten_steps += found_.charged_steps - before;
    const json stages = object.value("stages", json::object());
    for (const auto& [name, value] : stages.items()) {
      const std::int64_t releases = integer(stages, name.c_str());
      count_stage(name, releases, std::max(releases, found_.stage_charges[name]));
    }
  }

  /// Where the line and we disagree, the larger count is kept: never under-count.
  void count(std::int64_t said, std::int64_t counted) {
    if (said != counted) problem(fmt::format("says {} charged steps, not {}", said, counted));
    found_.charged_steps = std::max(said, counted);
    if (found_.charged_steps > found_.max_charged_steps)
      problem(fmt::format("charges more than the plan's {} steps", found_.max_charged_steps));
  }

  void count_stage(const std::string& name, std::int64_t said, std::int64_t counted) {
    if (said != counted)
      problem(fmt::format("says {} releases of the stage '{}', not {}", said, name, counted));
    found_.stage_charges[name] = std::max(said, counted);
    const auto limit = stage_limits_.find(name);
    if (limit == stage_limits_.end()) {
      problem(fmt::format("charges the stage '{}', which the plan does not know", name));
    } else if (found_.stage_charges[name] > limit->second) {
      problem(fmt::format("charges more than the plan's {} releases of the stage '{}'",
                          limit->second, name));
    }
  }

  LedgerSummary found_;
  std::map<std::string, std::int64_t> stage_limits_;
  std::int64_t checkpoint_step_ = -1;
  std::string checkpoint_;
  std::string expected_head_;
  bool head_seen_;
  std::int64_t session_last_step_ = -1;
};

}  // namespace

std::string plan_text(const json& plan) {
  return plan.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string seal_line(const json& line) {
  const std::string body = line.dump(-1, ' ', true, json::error_handler_t::replace);
  return fmt::format("{}{}{}{}", std::string_view(body).substr(0, body.size() - 1), kSealBegin,
                     sha256_hex(body), kSealEnd);
}

bool seal_holds(std::string_view line) {
  if (line.size() <= kSealSize) return false;
  const std::size_t begin = line.size() - kSealSize;
  const std::string_view seal = line.substr(begin);
  return seal.starts_with(kSealBegin) && seal.ends_with(kSealEnd) &&
         seal.substr(kSealBegin.size(), 64) == sha256_hex(std::string(line.substr(0, begin)) + "}");
}

json to_json(const InitialWeights& initial) {
  return {{"origin", initial.origin},
          {"sha256", initial.sha256.empty() ? json() : json(initial.sha256)},
          {"on_word", initial.on_word}};
}

bool is_released_name(std::string_view text) {
  constexpr std::string_view kKnown =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._/-";
  return !text.empty() && text.size() <= 100 && text.front() != '/' &&
         text.find("..") == text.npos && text.find_first_not_of(kKnown) == text.npos;
}

std::map<std::string, std::int64_t> stage_limits(const json& plan) {
  std::map<std::string, std::int64_t> limits;
  if (!plan.is_object() || !plan.contains("stages") || !plan["stages"].is_array()) return limits;
  for (const json& stage : plan["stages"]) {
    if (!stage.is_object() || !stage.contains("name") || !stage["name"].is_string()) continue;
    if (stage.contains("declared") && stage["declared"] == json(true)) continue;
    const char* key = stage.contains("steps") ? "steps" : "count";
    if (!stage.contains(key) || !stage[key].is_number_integer()) continue;
    limits[stage["name"].get<std::string>()] = stage[key].get<std::int64_t>();
  }
  return limits;
}

ChargesAfterTear count_torn_line(const LedgerSummary& state,
                                 const std::map<std::string, std::int64_t>& stage_limits) {
  ChargesAfterTear after{std::min(state.charged_steps + 1, state.max_charged_steps),
                         state.stage_charges};
  for (const auto& [name, limit] : stage_limits)
    after.stages[name] = std::min(after.stages[name] + 1, std::max(limit, after.stages[name]));
  return after;
}

LedgerSummary read_ledger(const std::filesystem::path& path, std::string_view bytes,
                          const std::string& expected_head) {
  return Reader(path, expected_head).read(bytes);
}

LedgerSummary verify_ledger(const std::filesystem::path& path, const std::string& expected_head) {
  return read_ledger(path, read_file(path), expected_head);
}

std::int64_t LedgerSummary::charged_releases() const {
  return std::accumulate(stage_charges.begin(), stage_charges.end(), charged_steps,
                         [](std::int64_t sum, const auto& stage) { return sum + stage.second; });
}

bool LedgerSummary::insecure() const {
  return std::any_of(sessions.begin(), sessions.end(),
                     [](const LedgerSession& session) { return session.insecure; });
}

}  // namespace sfumato
