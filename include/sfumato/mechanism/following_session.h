#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "sfumato/dist/communicator.h"
#include "sfumato/grad/clipped_sum.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/privacy/mechanism.h"
#include "sfumato/privacy/poisson_sampler.h"
#include "sfumato/privacy/secure_random.h"

namespace sfumato {

/// A session on a rank that follows rank 0, which holds the ledger (MechanismSession::lead): it
/// draws the same samples, and noise for the parts of the weights that it owns, from a key of its
/// own that never leaves it, once rank 0 has the charge on disk.
class FollowingSession {
 public:
  /// Collective with MechanismSession::lead, errors as there. `plan`: as frozen by rank 0.
  FollowingSession(const MechanismPlan& plan, std::shared_ptr<Communicator> ranks, SecureKey key);
  ~FollowingSession();
  FollowingSession(FollowingSession&&) noexcept;

  /// That of MechanismSession::sample on rank 0.
  std::vector<std::int64_t> sample(std::int64_t step, std::int64_t records) const;
  /// Collective with MechanismSession::release on rank 0, an Error of the same kind where that
  /// fails; PrivacyError for a sum of another clip norm. The result must not outlive the session.
  NoisyGradient release(ClippedSum&& sum, std::int64_t step);

  const MechanismPlan& plan() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sfumato
