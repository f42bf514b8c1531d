#include "dist/rank_watch.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <sstream>
#include <thread>

#include "dist/deadline.h"
#include "sfumato/core/error.h"

namespace sfumato {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

/// For what must be noticed soon: a rank leaves, or a call has failed.
constexpr milliseconds kQuickPace{25};

std::string seconds_of(milliseconds time) {
  return fmt::format("{:.3g} s", static_cast<double>(time.count()) / 1000);
}

}  // namespace

std::string SignOfLife::text() const {
  return fmt::format("{} {} {} {} {}", beat, calls, holds ? 1 : 0, static_cast<int>(state),
                     culprit);
}

SignOfLife SignOfLife::of(const std::string& text) {
  SignOfLife sign;
  int number = 0;
  std::istringstream in(text);
  if (!(in >> sign.beat >> sign.calls >> sign.holds >> number >> sign.culprit)) return {};
  sign.state = static_cast<RankState>(number);
  return sign;
}

/// What both threads and the rank itself share; it outlives a thread that the board keeps waiting.
class RankWatch::Watched {
 public:
  Watched(std::unique_ptr<SignBoard> board, int64_t rank, std::vector<std::string> names,
          WatchOptions options)
      : board_(std::move(board)),
        rank_(rank),
        names_(std::move(names)),
        options_(std::move(options)),
        pace_(std::clamp(options_.silence / 20, milliseconds(10), milliseconds(1000))),
        signs_(names_.size()),
        ages_(names_.size()) {
    if (!options_.end_process) options_.end_process = end_for_lost_rank;
  }

  void exchange_signs();
  void judge();
  void call_begins();
  void call_ends();
  std::string blame(const std::string& reason);
  void hold(int change);
  void leave();
  /// Ends both threads; waits for `exchanging` only as long as the board lets it.
  void end();
  /// Until exchange_signs() has returned. False: the board keeps it.
  bool exchange_has_ended();

 private:
  using Lock = std::unique_lock<std::mutex>;

  void examine(milliseconds elapsed);
  void examine_sign(int64_t other);
  void examine_wait(milliseconds elapsed);
  void convict(int64_t culprit, std::string message);
  bool must_end(milliseconds elapsed);
  milliseconds patience() const;
  bool may_stop() const;
  void post_soon(RankState state);
  bool all_others(RankState state) const;
  bool in_order() const { return own_.state == RankState::kLeft || own_.state == RankState::kGone; }

  const std::unique_ptr<SignBoard> board_;  // of exchange_signs() alone
  const int64_t rank_;
  const std::vector<std::string> names_;
  WatchOptions options_;
  const milliseconds pace_;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool ends_ = false, exchange_ended_ = false, hurry_ = false, suspects_ = false;
  SignOfLife own_, posted_;
  int holds_ = 0;
  bool in_call_ = false;

  std::vector<SignOfLife> signs_;
  int64_t exchanges_ = 0;
  std::string board_error_;

  // Ages count the judge's own ticks: where all processes of a machine, this one too, were stopped
  // for a while, nobody is older for it.
  std::vector<SignOfLife> seen_ = signs_;
  std::vector<milliseconds> ages_;
  int64_t seen_exchanges_ = 0;
  milliseconds board_age_{0}, wait_{0}, overdue_{0};
  int64_t least_calls_ = -1;
  Clock::time_point linger_until_;

  std::optional<std::string> verdict_;
  bool taken_ = false;  ///< the rank has thrown it
};

// The thread that may block -------------------------------------------------------------------

void RankWatch::Watched::exchange_signs() {
  Lock lock(mutex_);
  while (board_error_.empty() && !may_stop()) {
    ++own_.beat;
    const SignOfLife sign = own_;
    lock.unlock();
    std::vector<SignOfLife> read;
    std::string error;
    try {
      board_->post(sign.text());
      for (const std::string& text : board_->read()) read.push_back(SignOfLife::of(text));
    } catch (const std::exception& failure) {
      error = failure.what();
      if (error.empty()) error = "no reason is known";
    }
    lock.lock();
    board_error_ = error;
    if (error.empty()) posted_ = sign;
    if (read.size() == signs_.size()) {
      signs_ = std::move(read);
      ++exchanges_;
    }
    changed_.notify_all();
    if (may_stop()) break;
    const bool quick = suspects_ || ends_ || in_order();
    changed_.wait_for(lock, quick ? std::min(pace_, kQuickPace) : pace_, [&] { return hurry_; });
    hurry_ = false;
  }
  exchange_ended_ = true;
  changed_.notify_all();
}

/// Whether the others can know how this rank ended. Whoever serves the board gives them the time to
/// look, or else they would only see that the board is gone.
bool RankWatch::Watched::may_stop() const {
  if (!ends_ || posted_.state != own_.state) return false;
  if (!options_.serves_board || in_order() || Clock::now() > linger_until_) return true;
  for (int64_t other = 0; other < static_cast<int64_t>(signs_.size()); ++other)
    if (other != rank_ && other != own_.culprit && signs_[other].state == RankState::kWorking)
      return false;
  return true;
}

// The thread that judges ----------------------------------------------------------------------

void RankWatch::Watched::judge() {
  Lock lock(mutex_);
  Clock::time_point last = Clock::now();
  while (!ends_) {
    changed_.wait_for(lock, pace_ / 2, [&] { return ends_; });
    const auto elapsed = std::chrono::duration_cast<milliseconds>(Clock::now() - last);
    last = Clock::now();
    const milliseconds counted = std::min(elapsed, pace_);
    if (!verdict_) examine(counted);
    if (!ends_ && must_end(counted)) {
      const std::string message = *verdict_;
      lock.unlock();
      options_.end_process(message);
      return;
    }
  }
}

milliseconds RankWatch::Watched::patience() const {
  if (!suspects_) return options_.silence;
  // A connection has broken: whoever is silent for some signs is it.
  return std::min(options_.silence, std::max(6 * pace_, milliseconds(1000)));
}

void RankWatch::Watched::examine(milliseconds elapsed) {
  board_age_ += elapsed;
  if (!board_error_.empty() || board_age_ > patience()) {
    // The names of who left in order are of no use any more.
    if (own_.state == RankState::kGone) return;
    const std::string server =
        options_.board_server >= 0
            ? fmt::format("{}, which serves {}", names_[options_.board_server], options_.board)
            : options_.board;
    convict(options_.board_server,
            fmt::format("{}, cannot be reached any more: it ended, was stopped or is cut off{}",
                        server, board_error_.empty() ? "" : " (" + board_error_ + ")"));
    return;
  }
  if (exchanges_ == seen_exchanges_) return;
  const int64_t ranks = static_cast<int64_t>(names_.size());
  for (int64_t other = 0; other < ranks; ++other) {
    ages_[other] += board_age_;
    if (signs_[other] != seen_[other]) ages_[other] = milliseconds(0);
  }
  examine_wait(board_age_);
  for (int64_t other = 0; other < ranks && !verdict_; ++other)
    if (other != rank_) examine_sign(other);
  board_age_ = milliseconds(0);
  seen_exchanges_ = exchanges_;
  seen_ = signs_;
}

void RankWatch::Watched::examine_sign(int64_t other) {
  const SignOfLife& sign = signs_[other];
  const std::string& name = names_[other];
  if (sign.state == RankState::kFailed) {
    const bool known = sign.culprit >= 0 && sign.culprit < static_cast<int64_t>(names_.size());
    if (known && sign.culprit == rank_)
      convict(rank_, fmt::format("{} takes this process, {}, for lost: it was stopped, cut off or "
                                 "did not come for too long",
                                 name, names_[rank_]));
    else if (known)
      convict(sign.culprit, fmt::format("{} is lost, as {} says", names_[sign.culprit], name));
    else
      convict(other,
              fmt::format("{} ended before the work was done; its own messages say why", name));
  } else if (sign.state != RankState::kWorking) {
    if (in_call_ && sign.calls < own_.calls)
      convict(other, fmt::format("{} has left, but others wait for it", name));
  } else if (ages_[other] > patience()) {
    convict(other, fmt::format("{} has given no sign of life for {}: it died, was stopped or is "
                               "cut off",
                               name, seconds_of(ages_[other])));
  }
}

/// Whether this rank waits too long in a call, and for whom: for those that have come to the
/// fewest.
void RankWatch::Watched::examine_wait(milliseconds elapsed) {
  int64_t last = rank_;
  bool holds = false;
  for (int64_t other = 0; other < static_cast<int64_t>(names_.size()); ++other) {
    const int64_t calls = other == rank_ ? own_.calls : signs_[other].calls;
    const int64_t least = last == rank_ ? own_.calls : signs_[last].calls;
    if (other != rank_ && calls < least) last = other;
    holds = holds || (other != rank_ && signs_[other].holds && calls < own_.calls);
  }
  const int64_t least = last == rank_ ? own_.calls : signs_[last].calls;
  wait_ = in_call_ && !holds && least == least_calls_ ? wait_ + elapsed : milliseconds(0);
  least_calls_ = least;
  if (wait_ <= options_.stuck) return;
  if (last == rank_)
    convict(-1, fmt::format("a call that all processes have come to has not ended for {}: a "
                            "connection between them hangs",
                            seconds_of(wait_)));
  else
    convict(last, fmt::format("{} lives, but for {} has not come to where the others wait for it: "
                              "it hangs",
                              names_[last], seconds_of(wait_)));
}

void RankWatch::Watched::convict(int64_t culprit, std::string message) {
  verdict_ = message + "; start all processes again, and a run continues from its last checkpoint";
  own_.culprit = culprit;
  if (holds_ == 0) post_soon(RankState::kFailed);
  changed_.notify_all();
}

/// Once the rank itself has had time to notice.
bool RankWatch::Watched::must_end(milliseconds elapsed) {
  if (!verdict_ || holds_ > 0) return false;
  overdue_ += elapsed;
  if (taken_) return overdue_ > options_.silence + 3 * pace_;
  // Whoever serves the board gives the others time to read on it who is to blame.
  return overdue_ > std::min(options_.silence, milliseconds(1000)) +
                        (options_.serves_board ? 2 * pace_ : milliseconds(0));
}

// The rank itself -----------------------------------------------------------------------------

void RankWatch::Watched::post_soon(RankState state) {
  own_.state = state;
  hurry_ = true;
  changed_.notify_all();
}

void RankWatch::Watched::call_begins() {
  const Lock lock(mutex_);
  if (verdict_) {
    taken_ = true;
    throw LostRank(*verdict_);
  }
  ++own_.calls;
  in_call_ = true;
  wait_ = milliseconds(0);
}

void RankWatch::Watched::call_ends() {
  const Lock lock(mutex_);
  in_call_ = false;
}

std::string RankWatch::Watched::blame(const std::string& reason) {
  Lock lock(mutex_);
  in_call_ = false;
  suspects_ = taken_ = true;
  hurry_ = true;
  changed_.notify_all();
  const bool found =
      changed_.wait_for(lock, options_.silence + 10 * pace_, [&] { return verdict_.has_value(); });
  if (!found)
    convict(-1, fmt::format("the connection to another process broke, though all of them live "
                            "({})",
                            reason));
  return *verdict_;
}

void RankWatch::Watched::hold(int change) {
  const Lock lock(mutex_);
  holds_ += change;
  own_.holds = holds_ > 0;
  if (verdict_ && holds_ == 0) own_.state = RankState::kFailed;
  hurry_ = true;
  changed_.notify_all();
}

bool RankWatch::Watched::all_others(RankState state) const {
  for (int64_t other = 0; other < static_cast<int64_t>(signs_.size()); ++other)
    if (other != rank_ && signs_[other].state != state && signs_[other].state != RankState::kGone)
      return false;
  return true;
}

void RankWatch::Watched::leave() {
  Lock lock(mutex_);
  if (!verdict_) post_soon(RankState::kLeft);
  changed_.wait(lock, [&] { return verdict_ || all_others(RankState::kLeft); });
  if (verdict_) {
    taken_ = true;
    throw LostRank(*verdict_);
  }
  // All work is done. Whoever serves the board stays until the others know that, too.
  post_soon(RankState::kGone);
  changed_.wait_for(lock, options_.silence, [&] {
    return !board_error_.empty() || (posted_.state == RankState::kGone &&
                                     (!options_.serves_board || all_others(RankState::kGone)));
  });
}

void RankWatch::Watched::end() {
  const Lock lock(mutex_);
  if (!in_order()) own_.state = RankState::kFailed;
  ends_ = hurry_ = true;
  linger_until_ = Clock::now() + 3 * pace_;
  changed_.notify_all();
}

bool RankWatch::Watched::exchange_has_ended() {
  Lock lock(mutex_);
  return changed_.wait_for(lock, 3 * pace_ + milliseconds(1000), [&] { return exchange_ended_; });
}

RankWatch::RankWatch(std::unique_ptr<SignBoard> board, int64_t rank, std::vector<std::string> names,
                     WatchOptions options)
    : watched_(
          std::make_shared<Watched>(std::move(board), rank, std::move(names), std::move(options))) {
  std::thread([watched = watched_] { watched->exchange_signs(); }).detach();
  std::thread([watched = watched_] { watched->judge(); }).detach();
}

RankWatch::~RankWatch() {
  watched_->end();
  watched_->exchange_has_ended();
}

void RankWatch::call_begins() { watched_->call_begins(); }
void RankWatch::call_ends() { watched_->call_ends(); }
std::string RankWatch::blame(const std::string& reason) { return watched_->blame(reason); }
void RankWatch::hold_begins() { watched_->hold(1); }
void RankWatch::hold_ends() { watched_->hold(-1); }
void RankWatch::leave() { watched_->leave(); }

}  // namespace sfumato
