#include "sfumato/core/stop_signal.h"

#include <unistd.h>

#include <atomic>
#include <csignal>

namespace sfumato {
namespace {

std::atomic<bool> g_stop{false};
static_assert(std::atomic<bool>::is_always_lock_free);

void on_signal(int signal) {
  // Only async-signal-safe work here.
  if (g_stop.exchange(true) && signal != SIGUSR1) ::_exit(130);
}

}  // namespace

void install_stop_signals() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) ::sigaction(signal, &action, nullptr);
}

bool stop_requested() { return g_stop.load(); }
void set_stop_requested(bool value) { g_stop.store(value); }

}  // namespace sfumato
