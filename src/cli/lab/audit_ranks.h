#pragma once
#include <cstdint>
#include <functional>
#include <memory>

#include "cli/subcommands.h"
#include "sfumato/config/config.h"
#include "sfumato/dist/communicator.h"

namespace sfumato::cli {

/// An audit by all processes that a launcher started: joins them, lets the first one alone speak,
/// and has them part when `audit` is done. Where `audit` throws, it parts by itself if all do.
void with_ranks(const std::function<void(const std::shared_ptr<Communicator>&)>& audit);

/// Threads by performance.threads, or of several processes each its share of the machine's cores.
void set_threads_of_rank(int64_t setting, const Communicator& ranks);

/// The settings of an audit of a mechanism, checked; sets the threads as well.
std::unique_ptr<Config> load_for_audit(const ConfigOptions& options, const Communicator& ranks);

}  // namespace sfumato::cli
