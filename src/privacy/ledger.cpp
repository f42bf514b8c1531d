#include "sfumato/privacy/ledger.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "ledger_line.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/sha256.h"
#include "sfumato/core/text.h"
#include "sfumato/core/version.h"

namespace sfumato {
namespace {

using json = nlohmann::ordered_json;

/// One process at a time: an flock lasts as long as the descriptor, whatever way a process ends.
void lock(int fd, const std::filesystem::path& path) {
  if (::flock(fd, LOCK_EX | LOCK_NB) == 0) return;
  const int error = errno;
  if (error == EWOULDBLOCK)
    throw PrivacyError(
        fmt::format("another process holds the ledger '{}': two processes cannot train one run; "
                    "wait for the other, or stop it",
                    path.string()));
  throw PrivacyError(fmt::format(
      "cannot lock the ledger '{}' ({}): without a lock two processes could spend one budget; "
      "keep runs on a file system that has flock",
      path.string(), std::strerror(error)));
}

[[noreturn]] void fail_open(const std::filesystem::path& path, int error) {
  throw DataError(fmt::format("cannot open the ledger '{}': {}; check the path and permissions",
                              path.string(), std::strerror(error)));
}

}  // namespace

ChargedStep::ChargedStep(ChargedStep&& other) noexcept
    : step_(other.step_),
      release_(std::exchange(other.release_, 0)),
      key_id_(std::move(other.key_id_)) {}

ChargedStep& ChargedStep::operator=(ChargedStep&& other) noexcept {
  step_ = other.step_;
  release_ = std::exchange(other.release_, 0);
  key_id_ = std::move(other.key_id_);
  return *this;
}

void ChargedStep::check_unspent() const {
  if (release_ == 0) throw PrivacyError("a charge was used twice; charge every noisy release");
}

std::int64_t ChargedStep::optimizer_step() const {
  check_unspent();
  return step_;
}

std::int64_t ChargedStep::release_number() const {
  check_unspent();
  return release_;
}

std::int64_t ChargedStep::spend(const SecureKey& key) {
  check_unspent();
  if (key.id() != key_id_)
    throw PrivacyError(
        fmt::format("step {} was charged for noise key {}, not {}", step_, key_id_, key.id()));
  return std::exchange(release_, 0);
}

ChargedStep ToldCharges::told(std::int64_t optimizer_step, std::int64_t release_number) {
  if (optimizer_step <= last_step_ || release_number <= last_release_)
    throw PrivacyError(fmt::format(
        "the holder of the ledger told of step {} and release {} after step {} and release {}: "
        "noise would be drawn twice",
        optimizer_step, release_number, last_step_, last_release_));
  make_nonce(StreamDomain::kNoise, release_number);  // refuses what no nonce can hold
  last_step_ = optimizer_step;
  last_release_ = release_number;
  return ChargedStep(optimizer_step, release_number, key_id_);
}

Ledger Ledger::create(const std::filesystem::path& path, const json& plan,
                      std::int64_t max_charged_steps, const SecureKey& noise_key, bool witnessed,
                      const InitialWeights& initial, const std::string& data_manifest_hash) {
  if (max_charged_steps < 1)
    throw UsageError(fmt::format("a plan of {} steps trains nothing", max_charged_steps));
  if (!data_manifest_hash.empty() && !is_sha256(data_manifest_hash))
    throw PrivacyError(
        fmt::format("'{}' is no manifest_hash of a record store", data_manifest_hash));
  Ledger ledger;
  ledger.lock_fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (ledger.lock_fd_ < 0 && errno == EEXIST)
    throw UsageError(fmt::format(
        "'{}' exists: resume that run, or choose another folder for a new one", path.string()));
  if (ledger.lock_fd_ < 0) fail_open(path, errno);
  ledger.process_ = ::getpid();
  ledger.state_ = std::make_unique<LedgerSummary>();
  LedgerSummary& state = *ledger.state_;
  state.path = path;
  state.head_hash = kNoPrevious;
  state.run_id = random_hex(8);
  state.plan = plan_text(plan);
  state.plan_hash = sha256_hex(state.plan);
  state.max_charged_steps = max_charged_steps;
  state.initial_weights = initial;
  state.data_manifest_hash = data_manifest_hash;
  try {
    lock(ledger.lock_fd_, path);
    ledger.file_ = std::make_unique<AppendFile>(path);
    json first = {{"kind", "create"},
                  {"format", kLedgerFormat},
                  {"run", state.run_id},
                  {"plan", plan},
                  {"plan_hash", state.plan_hash},
                  {"max_charged_steps", max_charged_steps},
                  {"initial_weights", to_json(initial)}};
    // Beside them: older versions refuse another key among those three, and ignore one here.
    if (!initial.folders.empty()) first["initial_folders"] = initial.folders;
    if (!data_manifest_hash.empty()) first["data_manifest_hash"] = data_manifest_hash;
    ledger.begin_session(std::move(first), noise_key, witnessed);
    fsync_path(path.has_parent_path() ? path.parent_path() : ".");
  } catch (...) {
    ::unlink(path.c_str());  // ours since O_EXCL, and nothing is charged in it
    throw;
  }
  const LedgerSession& first = state.sessions.front();
  state.created = first.started;
  state.version = first.version;
  state.git_commit = first.git_commit;
  return ledger;
}

Ledger Ledger::open(const std::filesystem::path& path, const std::string& expected_head) {
  Ledger ledger;
  ledger.lock_fd_ = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (ledger.lock_fd_ < 0) fail_open(path, errno);
  ledger.process_ = ::getpid();
  lock(ledger.lock_fd_, path);
  const std::string bytes = read_file(path);
  ledger.state_ = std::make_unique<LedgerSummary>(read_ledger(path, bytes, expected_head));
  const LedgerSummary& state = *ledger.state_;
  if (!state.problems.empty())
    throw PrivacyError(fmt::format(
        "the ledger '{}' is damaged: {}{}. What was spent is no longer certain, so this run cannot "
        "go on; restore the file from a copy or start a new run",
        path.string(), state.problems.front(),
        state.problems.size() > 1
            ? fmt::format(" (and {} more: `sfumato ledger verify {}`)", state.problems.size() - 1,
                          path.parent_path().string())
            : ""));
  ledger.state_->history = {};  // of no use to a writer
  ledger.file_ = std::make_unique<AppendFile>(path);
  ledger.mend(bytes);
  return ledger;
}

/// A crash can leave the last line without its end.
void Ledger::mend(const std::string& bytes) {
  size_ = static_cast<std::int64_t>(bytes.size()) - state_->torn_bytes;
  const std::int64_t torn = std::exchange(state_->torn_bytes, 0);
  if (torn > 0) {
    if (::ftruncate(lock_fd_, size_) != 0 || ::fsync(lock_fd_) != 0) fail_open(state_->path, errno);
    const auto after = count_torn_line(*state_, stage_limits(json::parse(state_->plan)));
    json line = {{"kind", "recovered"}, {"cut_bytes", torn}, {"charged", after.charged_steps}};
    if (!after.stages.empty()) line["stages"] = after.stages;
    append(line);
    state_->charged_steps = after.charged_steps;
    state_->stage_charges = after.stages;
    ++state_->recoveries;
  } else if (bytes.back() != '\n') {
    file_->append("\n");
    ++size_;
  }
}

Ledger::~Ledger() {
  file_.reset();
  if (lock_fd_ >= 0) ::close(lock_fd_);
}

Ledger::Ledger(Ledger&& other) noexcept
    : state_(std::move(other.state_)),
      file_(std::move(other.file_)),
      on_charge_(std::move(other.on_charge_)),
      lock_fd_(std::exchange(other.lock_fd_, -1)),
      size_(other.size_),
      session_last_step_(other.session_last_step_),
      in_session_(other.in_session_),
      process_(other.process_) {}

void Ledger::resume(const SecureKey& noise_key, bool witnessed) {
  for (const LedgerSession& earlier : state_->sessions)
    if (earlier.noise_key_id == noise_key.id())
      throw PrivacyError(fmt::format(
          "session {} of '{}' already drew noise from key {}: the same noise twice cancels out; "
          "every session needs a new key",
          earlier.number, state_->path.string(), noise_key.id()));
  begin_session({{"kind", "resume"}}, noise_key, witnessed);
}

void Ledger::begin_session(json line, const SecureKey& noise_key, bool witnessed) {
  noise_key.chacha_key();  // refuses a key of another process
  LedgerSession session;
  session.number = static_cast<std::int64_t>(state_->sessions.size()) + 1;
  session.noise_key_id = noise_key.id();
  session.started = utc_now();
  session.version = version();
  session.git_commit = git_commit();
  session.insecure = noise_key.insecure();
  session.witnessed = witnessed;
  line["session"] = session.number;
  line["noise_key_id"] = session.noise_key_id;
  line["time"] = session.started;
  line["version"] = session.version;
  line["git_commit"] = session.git_commit;
  line["insecure"] = session.insecure;
  if (!witnessed) line["witness"] = false;
  append(line);
  state_->sessions.push_back(session);
  session_last_step_ = -1;
  in_session_ = true;
}

void Ledger::check_session(const SecureKey& noise_key) const {
  noise_key.chacha_key();
  if (!in_session_)
    throw PrivacyError("the ledger was opened but no session was started; resume it with a key");
  const LedgerSession& session = state_->sessions.back();
  if (noise_key.id() != session.noise_key_id)
    throw PrivacyError(fmt::format("noise key {} is not the one of this session ({})",
                                   noise_key.id(), session.noise_key_id));
}

ChargedStep Ledger::charge(std::int64_t optimizer_step, const SecureKey& noise_key) {
  check_session(noise_key);
  LedgerSession& session = state_->sessions.back();
  if (state_->charged_steps >= state_->max_charged_steps)
    throw PrivacyError(fmt::format(
        "all {} noisy steps of the plan are charged (a step repeated after a crash counts again); "
        "one more would exceed the promised epsilon. What is trained so far is the result",
        state_->max_charged_steps));
  if (optimizer_step <= session_last_step_)
    throw PrivacyError(
        fmt::format("step {} was to be charged after step {} in one session; a step is taken again "
                    "only by a later session",
                    optimizer_step, session_last_step_));
  const std::int64_t release = state_->charged_releases() + 1;
  make_nonce(StreamDomain::kNoise, release);  // refuses what no nonce can hold
  append({{"kind", "charge"},
          {"session", session.number},
          {"step", optimizer_step},
          {"charged", state_->charged_steps + 1}});
  ++state_->charged_steps;
  ++session.charged_steps;
  session_last_step_ = optimizer_step;
  state_->last_optimizer_step = std::max(state_->last_optimizer_step, optimizer_step);
  if (on_charge_) on_charge_();
  return ChargedStep(optimizer_step, release, session.noise_key_id);
}

ChargedStep Ledger::charge_stage(const std::string& stage, const SecureKey& noise_key) {
  check_session(noise_key);
  const auto limits = stage_limits(json::parse(state_->plan));
  const auto limit = limits.find(stage);
  if (limit == limits.end())
    throw PrivacyError(fmt::format(
        "'{}' is no stage that the plan lets this run make: every use of the private data is "
        "frozen in the plan before the first; name it in mechanism.stages and start a new run",
        stage));
  const std::int64_t count = charged_releases(stage) + 1;
  if (count > limit->second)
    throw PrivacyError(fmt::format(
        "all {} releases of the stage '{}' are charged (one that a crash made uncertain counts as "
        "well); one more would exceed the promised epsilon. Go on without it or start a new run",
        limit->second, stage));
  const std::int64_t release = state_->charged_releases() + 1;
  make_nonce(StreamDomain::kSideStatistic, release);
  const LedgerSession& session = state_->sessions.back();
  append({{"kind", "stage"}, {"session", session.number}, {"stage", stage}, {"release", count}});
  state_->stage_charges[stage] = count;
  if (on_charge_) on_charge_();
  return ChargedStep(-1, release, session.noise_key_id);
}

std::int64_t Ledger::charged_releases(const std::string& stage) const {
  const auto found = state_->stage_charges.find(stage);
  return found == state_->stage_charges.end() ? 0 : found->second;
}

void Ledger::record_result(const std::string& stage, const std::string& sha256) {
  if (!in_session_)
    throw PrivacyError("the ledger was opened but no session was started; resume it with a key");
  const auto limits = stage_limits(json::parse(state_->plan));
  const auto limit = limits.find(stage);
  if (limit == limits.end() || charged_releases(stage) < limit->second)
    throw PrivacyError(
        fmt::format("the stage '{}' has no result yet: {} of {} releases are charged; note it when "
                    "all are",
                    stage, charged_releases(stage), limit == limits.end() ? 0 : limit->second));
  if (!result_of(stage).empty())
    throw PrivacyError(
        fmt::format("the stage '{}' has its result already: SHA-256 {}", stage, result_of(stage)));
  if (!is_sha256(sha256))
    throw PrivacyError(
        fmt::format("'{}' is no SHA-256 of what the stage '{}' released", sha256, stage));
  append({{"kind", "result"},
          {"session", static_cast<std::int64_t>(state_->sessions.size())},
          {"stage", stage},
          {"result", sha256}});
  state_->stage_results[stage] = sha256;
}

std::string Ledger::result_of(const std::string& stage) const {
  const auto found = state_->stage_results.find(stage);
  return found == state_->stage_results.end() ? std::string() : found->second;
}

void Ledger::record_release(const ReleasedFiles& released) {
  const auto check = [](const std::string& sha256, const std::string& what) {
    if (!is_sha256(sha256))
      throw PrivacyError(fmt::format("'{}' is no SHA-256 of released {}", sha256, what));
  };
  check(released.weights, "weights");
  check(released.card_facts, "facts");
  for (const auto& [name, sha256] : released.files) {
    check(sha256, "files");
    if (!is_released_name(name))
      throw PrivacyError(fmt::format("'{}' is no name of a file in release/", name));
  }
  json line = {{"kind", "release"},
               {"session", static_cast<std::int64_t>(state_->sessions.size())},
               {"weights", released.weights},
               {"card_facts", released.card_facts},
               {"files", released.files}};
  if (released.by_discriminator) line["by_discriminator"] = *released.by_discriminator;
  append(std::move(line));
  state_->released = released;
}

void Ledger::record_event(const std::string& kind, const json& fields) {
  if (kind != "stop" && kind != "checkpoint")
    throw PrivacyError(fmt::format("'{}' is no ledger event; there are stop and checkpoint", kind));
  json line = {{"kind", kind}, {"session", static_cast<std::int64_t>(state_->sessions.size())}};
  for (const auto& [name, value] : fields.items()) {
    const bool number = name == "step" && value.is_number_integer();
    const bool words = (name == "reason" || name == "checkpoint") && value.is_string() &&
                       value.get_ref<const std::string&>().size() <= 200;
    if (!number && !words)
      throw PrivacyError(fmt::format(
          "'{}' may not be written to the ledger: it leaves with the results, and only step, "
          "reason and checkpoint are known to hold nothing private",
          name));
    line[name] = value;
  }
  append(line);
}

void Ledger::check_ours() const {
  if (process_ != ::getpid())
    throw PrivacyError("the ledger was used in a forked process; open it after forking");
  if (file_ == nullptr)
    throw PrivacyError(fmt::format(
        "the ledger '{}' was closed after a failed write; resume the run", state_->path.string()));
  struct stat ours, there;
  if (::fstat(lock_fd_, &ours) != 0 || ::stat(state_->path.c_str(), &there) != 0 ||
      ours.st_dev != there.st_dev || ours.st_ino != there.st_ino || there.st_size != size_)
    throw PrivacyError(
        fmt::format("the ledger '{}' was changed, replaced or removed by somebody else while this "
                    "run was using it; put it back and resume",
                    state_->path.string()));
}

void Ledger::append(const json& fields) {
  check_ours();
  json line = {{"line", state_->lines + 1}};
  line.update(fields);
  line["previous"] = state_->head_hash;
  const std::string bytes = seal_line(line);
  try {
    file_->append(bytes + "\n");
  } catch (...) {
    file_.reset();  // what is on disk is now uncertain; only a fresh look may continue
    throw;
  }
  size_ += static_cast<std::int64_t>(bytes.size()) + 1;
  ++state_->lines;
  state_->head_hash = sha256_hex(bytes);
  state_->last_event = line["kind"].get<std::string>();
}

}  // namespace sfumato
