#pragma once
#include <functional>

#include "sfumato/core/error.h"
#include "sfumato/dist/communicator.h"

namespace sfumato {

// Work of several ranks that may fail: where one throws, all do, so that none waits for it in vain.
// Collective. What was thrown is known to all, so they may part in order (Communicator::leave)
// unless it is a LostRank of the connection.

/// Rank 0 works, for as long as it takes, while the others wait. What it throws all throw: it
/// itself the same, the others an Error of that kind which says that rank 0 did.
void on_leader(Communicator& ranks, const std::function<void()>& work);

/// All work; where one throws, all do: those that did not, an Error of the same kind, which names
/// it.
void everywhere(Communicator& ranks, const std::function<void()>& work);

/// `work` is made of the two above, so that it throws on all ranks or on none: where it throws,
/// they part in order first.
void or_part(Communicator& ranks, const std::function<void()>& work);

/// on_leader, after whose failure they part.
void on_leader_or_leave(Communicator& ranks, const std::function<void()>& work);

}  // namespace sfumato
