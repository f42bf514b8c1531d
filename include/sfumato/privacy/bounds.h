#pragma once
#include <cstdint>
#include <string>

namespace sfumato {

/// Ranges of clip norms C and of noise standard deviations sigma C outside of which float32 does
/// not keep what is argued for C near 1:
/// - norms are sums of up to 2^34 squares, each of which vanishes below 2^-126: that takes at most
///   2^-92 from C^2, less than a part in 2^32 down to C = 2^-30, 9e-10;
/// - clipped values vanish below 2^-126: with as many of them at most 2^-109, against a margin of
///   1e-6 C in the clip factors;
/// - sums of 2^40 contributions stay far below 2^127, and squares of norms up to 2^30 C as well;
/// - the grid of the release, 2^-11 sigma C at least, is a normal number, and so are noise and sum
///   on it; beyond 1e12 noise times a learning rate tends to leave float32.
inline constexpr double kLeastClipNorm = 1e-9, kMostClipNorm = 1e9;
inline constexpr double kLeastNoiseStddev = 1e-12, kMostNoiseStddev = 1e12;

/// Least constant of automatic clipping, which weighs a gradient of norm n by C / (n + gamma). What
/// vanishes of a norm is at most 2^-46 (the root of the 2^-92 above): a gradient that seems to be 0
/// and is not would be lifted above C by a smaller gamma. And below C / gamma = 2^60 a weight is
/// far from what float32 cannot hold.
inline constexpr double kLeastAutomaticGamma = 1e-9;

/// "" if C and sigma C lie in these ranges (sigma 0: C alone is looked at), or what is wrong and
/// what to change.
std::string noise_range_mistake(double clip_norm_l2, double noise_multiplier);

/// A public bound on the records of a batch, 1.25 b + 12 sqrt(b) + 128 for the divisor b: what the
/// margin for rounding below is made for.
double batch_bound(double expected_batch_size);

/// Trainable parameters that the margin below is made for.
inline constexpr std::int64_t kMostParameters = std::int64_t{1} << 32;

/// How much, relative to the clip norm, rounding may add to the L2 sensitivity of a clipped sum.
/// B is batch_bound(expected_batch_size); a store whose batches could exceed it is refused.
/// - A record changes the float32 rounding of all others: each of n additions in a row errs by half
///   a unit in the last place (2^-24) of a partial sum of norm at most B C, at random, so by
///   sqrt(n) 2^-24 B C together: 15/16 of 2^-20 B allow n = 225 even if all gradients point the
///   same way. (Only the examples of one physical batch are added in float32, and the sum is
///   rounded once more in the end.) A bound for random rounding, not for the worst case.
/// - The sum of each physical batch is rounded to a grid of at most 2^-40 C (grad/exact_sum.h). A
///   record moves all that follow it in the list to another place, so it may change every rounding,
///   of at most B physical batches, by a grid step in each of P elements: by B 2^-40 sqrt(P) C in
///   the worst case, the last 1/16 of 2^-20 B C for P = kMostParameters, beyond which the engine
///   refuses a network.
/// - The last physical batch of a step on the CPU in float32 has one of eight sizes, by how many
///   records there are, and matrix products of another size may sum in another order: that may move
///   each of its at most 64 clipped gradients by some 10^-6 of C, at random by 8 10^-6 C together,
///   which is a fifteenth of 2^-20 B C for the least B (128): it stays within what the first point
///   leaves, since no more than 64 examples are added in a row there. In bfloat16 all physical
///   batches have one size (train/physical_batch.h).
/// Single contributions have a margin of their own: the engine's clip factors are rounded down and
/// 1e-6 smaller than the formula.
double rounding_margin(double expected_batch_size);

/// PrivacyError unless Poisson batches of that many records stay within batch_bound, but for a
/// probability of 2^-100 a step: the divisor is then too small for the data, and rounding may move
/// the sum by more than its margin. Which data sets are admitted follows from public numbers alone:
/// those with at most some number of records.
void check_batch_bound(std::int64_t records, double sample_rate, double expected_batch_size);

/// Examples of a step, of all ranks and with padding, whose clipped gradients can be added up as
/// integers (grad/exact_sum.h): 2^20.
inline constexpr std::int64_t kMostExamplesOfASum = std::int64_t{1} << 20;

/// Whether every batch within batch_bound, shared out in whole physical batches, can be added up
/// so.
bool adds_up_exactly(double expected_batch_size, std::int64_t physical_batch, std::int64_t ranks);
/// UsageError unless it can. Asked before anything is charged and of public numbers alone: a run
/// that stopped at the first batch that is too large would tell its size, and would train on
/// batches that are not Poisson's.
void check_exact_sum(double expected_batch_size, std::int64_t physical_batch, std::int64_t ranks);

}  // namespace sfumato
