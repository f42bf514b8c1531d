#pragma once
#include <vector>

#include "sfumato/privacy/dominating_pair.h"
#include "sfumato/privacy/phase.h"

namespace sfumato {

/// P[Bin(n, q) >= k], an upper bound within 1e-12 relative.
double binomial_tail(std::int64_t n, double q, std::int64_t k);

/// Truncated Poisson sampling seen from one record (Ganesh 2025; google/differential-privacy): the
/// probability that the batch is full without it, P[Bin(n-1, q) >= B], and the probability with
/// which the record is in a batch that was cut. {0, 0} without truncation.
struct TruncatedSampling {
  double probability = 0;
  double sample_rate = 0;
};
TruncatedSampling truncated_sampling(const Phase& phase);

/// (P, Q) with Gaussian noise of standard deviation `sigma`; several with weights where a public
/// coin, thrown anew in every release, chooses the mechanism (truncated Poisson sampling).
struct WeightedPair {
  double weight;
  DominatingPair pair;
  double sigma;
};

/// One step of a phase in each direction (see both_directions); needs a sample rate
/// above 0, where 1 counts as the number below it, and finite noise above 0.
std::vector<std::vector<WeightedPair>> phase_pairs(Phase phase, Adjacency adjacency);

}  // namespace sfumato
