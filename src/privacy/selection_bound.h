#pragma once
#include <span>

#include "sfumato/privacy/accountant.h"
#include "sfumato/privacy/pld.h"
#include "sfumato/privacy/rdp.h"

namespace sfumato {

/// What a selection of runs costs of which one costs certain events.
struct SelectionBound {
  double epsilon;
  double order = 0;  ///< where the RDP gave it
  double grid = 0;   ///< where privacy loss distributions did
};

/// By the privacy profile delta_Q of one run, larger of both directions (README.md of this folder):
/// epsilon + (1 + eta) epsilon_1, with mean * delta_Q(epsilon) <= delta and
/// (1 - gamma) delta_Q(epsilon_1) <= gamma (e^epsilon_1 - 1); or by RDP, where that is smaller or
/// what `accountant` asks for. For a mean above 1. Errors as account_epsilon.
SelectionBound selection_epsilon(Accountant accountant, std::span<const PrivacyEvent> events,
                                 double delta, Adjacency adjacency, const SelectionLaw& law,
                                 const PldOptions& options = {});
/// By RDP alone, of what is already composed.
EpsilonResult selection_epsilon(const RdpAccountant& events, double delta, const SelectionLaw& law);
/// The smallest delta at that epsilon.
double selection_delta(Accountant accountant, std::span<const PrivacyEvent> events, double epsilon,
                       Adjacency adjacency, const SelectionLaw& law);

}  // namespace sfumato
