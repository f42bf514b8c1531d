#pragma once
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "sfumato/privacy/adjacency.h"
#include "sfumato/privacy/rdp.h"

namespace sfumato {

/// The accountants that exist. A new one is a word here, a case in account_epsilon() and
/// account_delta(), and a proof.
enum class Accountant {
  kRdp,  ///< Renyi orders (rdp.h): an upper bound without a lower bracket
};

/// "rdp".
std::string to_string(Accountant accountant);
/// UsageError for an accountant that this version does not have.
Accountant parse_accountant(std::string_view text);

/// An (epsilon, delta) statement as commands print it and cards carry it.
struct PrivacyStatement {
  double epsilon;                       ///< may be infinite
  std::optional<double> epsilon_lower;  ///< where the accountant brackets the exact value
  double delta;
  Accountant accountant;
  Adjacency adjacency;
  std::optional<double> order;  ///< the Renyi order that gave it
};

/// The smallest epsilon that the accountant proves for `phases` at `delta`.
PrivacyStatement account_epsilon(Accountant accountant, std::span<const Phase> phases, double delta,
                                 Adjacency adjacency);
/// The smallest delta for `epsilon`; epsilon_lower is empty.
PrivacyStatement account_delta(Accountant accountant, std::span<const Phase> phases, double epsilon,
                               Adjacency adjacency);

}  // namespace sfumato
