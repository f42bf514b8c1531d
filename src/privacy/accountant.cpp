#include "sfumato/privacy/accountant.h"

#include <fmt/format.h>

#include "sfumato/core/error.h"

namespace sfumato {

std::string to_string(Accountant accountant) {
  switch (accountant) {
    case Accountant::kRdp: return "rdp";
  }
  throw UsageError("unknown accountant");
}

Accountant parse_accountant(std::string_view text) {
  if (text == "rdp") return Accountant::kRdp;
  if (text == "pld")
    throw UsageError(
        "accountant 'pld' is not in this version; use rdp, whose epsilon is an upper "
        "bound, usually some 5 to 15 percent larger");
  throw UsageError(fmt::format("accountant '{}' is unknown; use rdp", text));
}

PrivacyStatement account_epsilon(Accountant accountant, std::span<const Phase> phases, double delta,
                                 Adjacency adjacency) {
  PrivacyStatement statement{0, std::nullopt, delta, accountant, adjacency, std::nullopt};
  switch (accountant) {
    case Accountant::kRdp: {
      const EpsilonResult result = epsilon_from_rdp(phases, delta, adjacency);
      statement.epsilon = result.epsilon;
      if (result.order > 0) statement.order = result.order;
    }
  }
  return statement;
}

PrivacyStatement account_delta(Accountant accountant, std::span<const Phase> phases, double epsilon,
                               Adjacency adjacency) {
  PrivacyStatement statement{epsilon, std::nullopt, 1, accountant, adjacency, std::nullopt};
  switch (accountant) {
    case Accountant::kRdp: {
      const DeltaResult result = delta_from_rdp(phases, epsilon, adjacency);
      statement.delta = result.delta;
      if (result.order > 0) statement.order = result.order;
    }
  }
  return statement;
}

}  // namespace sfumato
