#include "sfumato/report/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "sfumato/core/bound_text.h"
#include "sfumato/core/text.h"

namespace sfumato {
namespace {

constexpr double kTerminalInterval_s = 0.1;

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

void RateMeter::add(double items, double seconds) {
  if (seconds > 0) {
    const double kept = std::exp2(-seconds / half_life_s_);
    items_ *= kept;
    seconds_ = seconds_ * kept + seconds;
  }
  items_ += items;
}

double RateMeter::items_per_s() const { return seconds_ > 0 ? items_ / seconds_ : 0; }

std::string progress_text(const ProgressState& state) {
  std::string text = fmt::format("step {}/{}", state.step, state.total);
  if (state.items_per_s > 0)
    text += fmt::format(" · {}{:.{}f} images/s", state.nominal ? "nominal " : "", state.items_per_s,
                        state.items_per_s < 10 ? 1 : 0);
  if (state.epsilon) text += fmt::format(" · ε {}", upper_bound_fixed(*state.epsilon, 2));
  if (std::isfinite(state.seconds_left) && state.seconds_left >= 0)
    text += fmt::format(" · {} left", human_duration(state.seconds_left));
  if (!state.warning.empty()) text += fmt::format(" · warning: {}", state.warning);
  return text;
}

Progress::Progress(std::ostream& out, bool is_terminal, double plain_interval_s, Clock clock)
    : out_(out),
      is_terminal_(is_terminal),
      interval_s_(is_terminal ? kTerminalInterval_s : plain_interval_s),
      clock_(clock ? std::move(clock) : steady_seconds) {}

void Progress::update(const ProgressState& state) {
  const double now_s = clock_();
  if (!shown_at_s_ || now_s - *shown_at_s_ >= interval_s_) {
    show(state, now_s);
  } else {
    unshown_ = state;
  }
}

void Progress::finish() {
  if (unshown_) show(*unshown_, clock_());
  if (is_terminal_ && shown_at_s_) out_ << '\n' << std::flush;
  shown_at_s_.reset();
}

void Progress::show(const ProgressState& state, double now_s) {
  // On a terminal the rest of a longer earlier line is erased (ECMA-48 "erase in line").
  if (is_terminal_)
    out_ << '\r' << progress_text(state) << "\x1b[K" << std::flush;
  else
    out_ << progress_text(state) << '\n' << std::flush;
  shown_at_s_ = now_s;
  unshown_.reset();
}

}  // namespace sfumato
