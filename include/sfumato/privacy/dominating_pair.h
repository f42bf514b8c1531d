#pragma once
#include <cstdint>
#include <vector>

#include "sfumato/privacy/adjacency.h"

namespace sfumato {

/// sum_j exp(ln_weights[j]) N(centres[j], sigma^2): one coordinate of the noisy clipped sum, along
/// the direction in which the unit of privacy pulls. Centres are in clip norms; the first
/// is 0, and component j of the two mixtures of a pair has the same weight.
struct GaussianMixture {
  std::vector<double> ln_weights;
  std::vector<double> centres;
};

/// A pair (P, Q) that dominates one step of the mechanism: every divergence between the outputs on
/// neighbouring data sets is at most that between P and Q, also under adaptive composition.
struct DominatingPair {
  GaussianMixture first;   ///< P
  GaussianMixture second;  ///< Q
};

/// The ordered pairs whose divergences have to be looked at; the guarantee is their maximum.
///   add-remove, zero-out, one record:  P = (1-q) N(0) + q N(1), Q = N(0). P against Q dominates
///   the
///     other direction at every order (Mironov, Talwar, Zhang 2019, theorem 5), hence one pair.
///   add-remove, zero-out, m records of one unit, each sampled by itself: P = sum_j Bin(m,q)(j)
///   N(j)
///     and Q = N(0), in both directions (Ganesh 2024, "Tight group-level DP guarantees for DP-SGD
///     with sampling via mixture of Gaussians mechanisms").
///   replace-one: P = (1-q) N(0) + q N(-1), Q = (1-q) N(0) + q N(+1); x -> -x swaps them, so both
///     directions are equal. With m > 1 no proof that the opposite mixtures dominate is known to
///     us: PrivacyError.
/// Requires 0 < sample_rate < 1 and records_per_unit >= 1.
std::vector<DominatingPair> dominating_pairs(double sample_rate, Adjacency adjacency,
                                             std::int64_t records_per_unit = 1);

/// The same pairs with both directions of every one, in the same order for all mechanisms of one
/// adjacency, as privacy loss distributions need them: neither direction dominates the other once
/// different mechanisms are composed. Two for add-remove and zero-out, one for replace-one.
std::vector<DominatingPair> both_directions(double sample_rate, Adjacency adjacency,
                                            std::int64_t records_per_unit = 1);

/// Renyi divergence D_order(P || Q) for noise of standard deviation `noise_multiplier` clip norms,
/// by a trapezoid rule on a non-negative integrand: with u = P/Q - 1, E_Q[u] = 0 and therefore
///   E_Q[(P/Q)^a] - 1 = E_Q[(1+u)^a - 1 - a u],
/// whose terms cannot cancel; the rule converges exponentially because the integrand is analytic
/// in a strip of half-width pi sigma^2. Relative error below 1e-10 (tests hold it against 40-digit
/// integration). Where the grid would be unreasonably long (tiny noise at a huge order) the result
/// is the divergence without subsampling, an upper bound by joint quasi-convexity.
/// Requires order > 1 and finite, noise_multiplier > 0 and finite.
double renyi_divergence(const DominatingPair& pair, double noise_multiplier, double order);

}  // namespace sfumato
