#pragma once
#include <optional>
#include <span>

#include "sfumato/privacy/adjacency.h"
#include "sfumato/privacy/event.h"
#include "sfumato/privacy/pld.h"
#include "sfumato/privacy/selection.h"

namespace sfumato {

/// An (epsilon, delta) statement as commands print it and cards carry it.
struct PrivacyStatement {
  double epsilon;                       ///< may be infinite
  std::optional<double> epsilon_lower;  ///< where the accountant brackets the exact value
  double delta;
  Accountant accountant;
  Adjacency adjacency;
  std::optional<double> order;        ///< the Renyi order that gave it (rdp)
  std::optional<double> delta_lower;  ///< the bracket's other end where delta was asked for (pld)
  std::optional<double> grid;         ///< spacing of the discretised privacy losses, nats (pld)
};

/// The smallest epsilon that the accountant proves for `events` at `delta`. With a selection,
/// `events` are what one of its runs costs, and the answer is that of the whole selection, an upper
/// bound without a lower one (selection_bound.cpp).
PrivacyStatement account_epsilon(Accountant accountant, std::span<const PrivacyEvent> events,
                                 double delta, Adjacency adjacency,
                                 const std::optional<Selection>& selection = std::nullopt);
/// Epsilon of a selection by pld with other work than the default (pld.h).
double account_selection(std::span<const PrivacyEvent> events, double delta, Adjacency adjacency,
                         const Selection& selection, const PldOptions& options);
/// The smallest delta for `epsilon`; epsilon_lower is empty.
PrivacyStatement account_delta(Accountant accountant, std::span<const PrivacyEvent> events,
                               double epsilon, Adjacency adjacency,
                               const std::optional<Selection>& selection = std::nullopt);

}  // namespace sfumato
