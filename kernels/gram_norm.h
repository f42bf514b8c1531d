#pragma once
// Squared norms of per-example weight gradients from Gram matrices, the gradient itself never
// formed. With tokens t = 1..T of an example (all draws, all positions) and the input seen by token
// t unfolded to X_t,
//   |g|^2 = |sum_t dy_t X_t^T|^2 = sum_{t,s} D[t,s] U[t,s],   D = <dy_t, dy_s>,  U = <X_t, X_s>,
// and for a convolution, by the shift identity, U[t,s] = sum_taps G[t + tap, s + tap] with G the
// Gram matrix of the zero-padded input over channels: nothing is unfolded either.
//
// Never too small. What is clipped and added up later is the gradient as float32 sums it; where its
// terms cancel, both that sum and the Gram sum are made of rounding errors alone. So the results
// are
//   (sqrt(max(S, 0) + E) + F)^2,   S = sum_{t,s} D U   (not finite: NaN),
// with M = sum_t |dy_t| |X_t| the sum of the magnitudes of the terms.
// - F = (3 T + 64) u M, u = 2^-24, bounds how much larger the gradient may come out of the
//   accumulators that add up its T terms (the kernels of linear_weight_grad.h, conv_weight_grad.h),
//   for every input: tensor cores cut and do not round, so that errors can all point one way and
//   grow with T and not with its root. c = 3 roundings of u for each term, as derived below, each
//   of a partial sum of norm at most M; 64 more for the parts that blocks hand on. Where nothing
//   cancels, M is sqrt(T) |g|: 7e-4 |g| for T = 256, 6e-3 |g| for T = 1024, where gradients are
//   rather formed.
// - E bounds what float32 Gram entries can be wrong by, for every input. A dot product of n terms
//   whose partial sums are rounded by at most c u each differs from the exact one by at most
//   e |a| |b|, e = r u / (1 - r u), where r = c n counts the roundings that one term goes through
//   (Higham, Accuracy and Stability, section 3.1, with Cauchy-Schwarz). Entries are summed in
//   chunks of 32 channels, each from zero and then added to the total: r = 32 c + chunks. float32:
//   fused multiply-adds, c = 1. bfloat16: tensor cores have exact products and add groups of at
//   least 4 of them to the accumulator, each addend cut (not rounded) to the largest one's last
//   place, 2 u, and the result once more: (5 + 1) 2 u for 4 products, c = 3 (less for larger groups
//   and for devices that keep more bits; cf. Fasi et al., Numerical behavior of NVIDIA tensor
//   cores, 2021). The sum over taps is in float32 too: as many roundings more as there are taps.
//   What vanishes below the smallest normal float adds at most n 2^-126. With
//   eD[t,s] = e(P) |dy_t| |dy_s| + P 2^-126 and eU[t,s] = e(C, taps) |X_t| |X_s| + C taps 2^-126,
//     |D U - exact| <= (|D| + eD) eU + eD |U|,
//   and E is the sum of that over all pairs, times 1.001 for the float64 arithmetic of S and E
//   (where the taps come in chunks, the chunks' |U| are added up).
//   The norms |dy_t|, |X_t| are float64. Taking the computed |D| and |U| in place of their bounds
//   is what keeps E small where terms do not cancel: for random tokens it is about e (1 + T /
//   sqrt(C)) |g|^2, for T = 1024 and C = P = 512 less than 1e-3 |g|^2 for either type.
// One token: |dy|^2 |X|^2, without E and F.
//
// NaN or infinity in an example, or a Gram entry beyond float32's range, makes that example's
// result NaN (one token: not finite) and no other's.
#include <array>
#include <cmath>
#include <cstdint>

#include "kernels/conv_shape.h"
#include "kernels/device/macros.cuh"
#include "kernels/element.h"

namespace sfumato {

/// x [B, T, C] and dy [B, T, P] of `in` -> squared_norm [B] of the gradients dy^T x [P, C].
/// One tile of tokens times another is one block's work, each pair of tiles once; both Gram
/// matrices of the pair stay in registers and shared memory, products and sums over (t, s) are
/// float64, the pairs' sums are added in a fixed order. Bits depend on the example and (T, C, P)
/// alone. FLOPs per example: about T^2 (C + P) (gram_norm_linear_operations), bytes: element size *
/// T (C + P) once for the norms and T / tile times for the products, mostly out of the L2 cache.
/// `workspace`: as many bytes as stated below. Returns a cudaError_t (0 is success).
int launch_gram_norm_linear(const void* x, const void* dy, Element in, const LinearShape& shape,
                            double* squared_norm, void* workspace, void* stream);
std::int64_t gram_norm_linear_workspace_bytes(const LinearShape& shape);
/// CPU twin: exact products in float64; E is taken as for the kernel.
void gram_norm_linear_cpu(const void* x, const void* dy, Element in, const LinearShape& shape,
                          double* squared_norm);

/// The same for a convolution (groups = 1): x [B K, H, W, C] without its padding and
/// dy [B K, Ho, Wo, P], channels last. A tile is a box of draws and output positions; the Gram
/// matrix of two tiles' inputs (their halos, for as many taps as fit) is made once in shared memory
/// and read for every tap. FLOPs per example: gram_norm_conv_operations, about T^2 (C h + P) + T^2
/// taps / 2 with h the square of (positions in a halo / in its tile).
int launch_gram_norm_conv(const void* x, const void* dy, Element in, const ConvShape& shape,
                          double* squared_norm, void* workspace, void* stream);
std::int64_t gram_norm_conv_workspace_bytes(const ConvShape& shape);
/// CPU twin; 8 ((K H W)^2 + T^2) bytes of scratch memory.
void gram_norm_conv_cpu(const void* x, const void* dy, Element in, const ConvShape& shape,
                        double* squared_norm);

/// Floating point operations per example of the tiles that the kernels choose (a multiply-add is
/// 2): what a choice between algorithms weighs.
double gram_norm_linear_operations(const LinearShape& shape, Element in);
double gram_norm_conv_operations(const ConvShape& shape, Element in);

/// e in the bound above for dot products over `width` elements, and for sums of `taps` of them.
constexpr double gram_entry_error(Element in, std::int64_t width, std::int64_t taps) {
  constexpr std::int64_t kChunk = 32;
  const std::int64_t per_product = in == Element::kFloat32 ? 1 : 3;
  const auto roundings =
      static_cast<double>(per_product * kChunk + (width + kChunk - 1) / kChunk + taps);
  constexpr double kUnit = 0x1p-24;
  return roundings * kUnit / (1 - roundings * kUnit);
}
/// What underflow may take from such a sum.
constexpr double gram_entry_underflow(std::int64_t width, std::int64_t taps) {
  return static_cast<double>(width) * static_cast<double>(taps) * 0x1p-126;
}

/// F above over M: what accumulators of `tokens` terms may add.
SFUMATO_DEVICE constexpr double gram_accumulation_error(std::int64_t tokens) {
  return (3 * static_cast<double>(tokens) + 64) * 0x1p-24;
}

/// (sqrt(max(sum, 0) + 1.001 error) + gram_accumulation_error magnitude)^2, NaN if anything is not
/// finite.
SFUMATO_DEVICE double gram_norm_with_floors(double sum, double error, double magnitude,
                                            std::int64_t tokens) {
  const double floor = gram_accumulation_error(tokens) * magnitude;
  const double norm = sqrt((sum > 0 ? sum : 0) + 1.001 * error) + floor;
  // x - x is NaN for what is not finite.
  return norm * norm + (sum - sum) + (floor - floor) + (error - error);
}

/// Geometry of a convolution seen by one example: K draws of a padded input [Hp, Wp] and an
/// output [Ho, Wo].
struct ConvGeometry {
  int64_t draws, padded_height, padded_width, out_height, out_width;
  std::array<int64_t, 2> kernel, stride, dilation;
};

struct GramNorm {
  double squared;    ///< |sum of T terms|^2; where they cancel, rounding may make it negative
  double magnitude;  ///< sum of the norms of the T terms, by which rounding is judged
};

/// S and M above of one example, on the CPU, from Gram matrices that the caller has made in
/// float64: of the padded input over channels [K Hp Wp]^2 and of the output gradient [K Ho Wo]^2.
/// FLOPs: (taps + 2) * T^2 / 2 (the sum is symmetric), bytes: 8 (Tp^2 + T^2).
GramNorm gram_norm_conv_cpu(const double* gram_input, const double* gram_output,
                            const ConvGeometry& geometry);

}  // namespace sfumato
