#include "sfumato/privacy/accountant.h"

#include "selection_bound.h"
#include "sfumato/privacy/pld.h"
#include "sfumato/privacy/rdp.h"

namespace sfumato {
namespace {

PrivacyStatement statement_of(Accountant accountant, double epsilon, double delta,
                              Adjacency adjacency) {
  return {.epsilon = epsilon,
          .epsilon_lower = std::nullopt,
          .delta = delta,
          .accountant = accountant,
          .adjacency = adjacency,
          .order = std::nullopt,
          .delta_lower = std::nullopt,
          .grid = std::nullopt};
}

}  // namespace

PrivacyStatement account_epsilon(Accountant accountant, std::span<const PrivacyEvent> events,
                                 double delta, Adjacency adjacency,
                                 const std::optional<Selection>& selection) {
  PrivacyStatement statement = statement_of(accountant, 0, delta, adjacency);
  if (selection && selection->mean_runs != 1) {
    const SelectionBound result =
        selection_epsilon(accountant, events, delta, adjacency, SelectionLaw(*selection));
    statement.epsilon = result.epsilon;
    if (result.order > 0) statement.order = result.order;
    if (result.grid > 0) statement.grid = result.grid;
  } else if (accountant == Accountant::kRdp) {
    const EpsilonResult result = epsilon_from_rdp(events, delta, adjacency);
    statement.epsilon = result.epsilon;
    if (result.order > 0) statement.order = result.order;
  } else {
    const PldBracket result = epsilon_from_pld(events, delta, adjacency);
    statement.epsilon = result.upper;
    statement.epsilon_lower = result.lower;
    statement.grid = result.grid;
  }
  return statement;
}

double account_selection(std::span<const PrivacyEvent> events, double delta, Adjacency adjacency,
                         const Selection& selection, const PldOptions& options) {
  if (selection.mean_runs == 1) return epsilon_from_pld(events, delta, adjacency, options).upper;
  return selection_epsilon(Accountant::kPld, events, delta, adjacency, SelectionLaw(selection),
                           options)
      .epsilon;
}

PrivacyStatement account_delta(Accountant accountant, std::span<const PrivacyEvent> events,
                               double epsilon, Adjacency adjacency,
                               const std::optional<Selection>& selection) {
  PrivacyStatement statement = statement_of(accountant, epsilon, 1, adjacency);
  if (selection && selection->mean_runs != 1) {
    statement.delta =
        selection_delta(accountant, events, epsilon, adjacency, SelectionLaw(*selection));
  } else if (accountant == Accountant::kRdp) {
    const DeltaResult result = delta_from_rdp(events, epsilon, adjacency);
    statement.delta = result.delta;
    if (result.order > 0) statement.order = result.order;
  } else {
    const PldBracket result = delta_from_pld(events, epsilon, adjacency);
    statement.delta = result.upper;
    statement.delta_lower = result.lower;
    statement.grid = result.grid;
  }
  return statement;
}

}  // namespace sfumato
