#pragma once

namespace sfumato {

/// SIGTERM, SIGINT and SIGUSR1 set a flag; the training and sampling loops look at it at step
/// boundaries. A second SIGINT or SIGTERM ends the process at once (exit 130).
void install_stop_signals();
bool stop_requested();
/// For tests.
void set_stop_requested(bool value);

}  // namespace sfumato
