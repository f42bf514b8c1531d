#pragma once
#include <functional>

#include "sfumato/dist/communicator.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/privacy/secure_random.h"

namespace sfumato {

// What ranks that train together tell each other of keys and charges. All of it is collective.

/// PrivacyError on all ranks unless all noise keys differ (a machine that was copied while it ran
/// may hand out the same random bytes twice), and unless all are from the operating system or rank
/// 0's is none: its ledger must know. Names of keys cross (64 bits of SHA-256), keys never do. Keys
/// of tests may be equal.
void check_noise_keys(Communicator& ranks, const SecureKey& noise_key);

/// Of rank 0's session, on all ranks.
SamplingKey share_sampling_key(Communicator& ranks, const SecureKey& noise_key);

/// On rank 0: charges, then tells the others. Where the charge fails they are told so first.
ChargedStep tell_of_charge(Communicator& ranks, const std::function<ChargedStep()>& charge);
/// On the others: the charge of `step`, once it is on disk. Where it failed, an Error of its kind.
ChargedStep hear_of_charge(Communicator& ranks, ToldCharges& charges, std::int64_t step);

}  // namespace sfumato
