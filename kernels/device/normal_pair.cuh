#pragma once
// Box-Muller from three 32-bit words, written once for every width. Ops supplies the types and the
// IEEE operations; nothing may be contracted to a fused multiply-add, so that scalar, vector and
// GPU results are the same bits.
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/device/chacha20.cuh"

namespace sfumato::device {

/// Never less noise than asked for: the next float up where stddev is not one. Host only.
inline float rounded_up(double stddev) {
  const float nearest = static_cast<float>(stddev);
  return static_cast<double>(nearest) >= stddev ? nearest : std::nextafter(nearest, HUGE_VALF);
}

/// One lane: the GPU, and on the host the reference that the tests hold the vector code against.
struct ScalarOps {
  using Word = std::uint32_t;
  using Int = std::int32_t;
  using Real = float;
#if defined(__CUDA_ARCH__)
  static SFUMATO_DEVICE Real mul(Real a, Real b) { return __fmul_rn(a, b); }
  static SFUMATO_DEVICE Real add(Real a, Real b) { return __fadd_rn(a, b); }
  static SFUMATO_DEVICE Real sqrt(Real a) { return __fsqrt_rn(a); }
  static SFUMATO_DEVICE Real div(Real a, Real b) { return __fdiv_rn(a, b); }
#else
  static SFUMATO_DEVICE Real mul(Real a, Real b) { return a * b; }
  static SFUMATO_DEVICE Real add(Real a, Real b) { return a + b; }
  static SFUMATO_DEVICE Real sqrt(Real a) { return std::sqrt(a); }
  static SFUMATO_DEVICE Real div(Real a, Real b) { return a / b; }
#endif
  /// To a whole number, ties to even.
  static SFUMATO_DEVICE Real round(Real a) { return rintf(a); }
  static SFUMATO_DEVICE Real signed_real(Word a) { return static_cast<Real>(static_cast<Int>(a)); }
  static SFUMATO_DEVICE Real unsigned_real(Word a) { return static_cast<Real>(a); }
  template <int kBits>
  static SFUMATO_DEVICE Word arithmetic_shift_right(Word a) {
    return static_cast<Word>(static_cast<Int>(a) >> kBits);
  }
  static SFUMATO_DEVICE Word bits(Real a) {
    Word b;
    memcpy(&b, &a, sizeof b);
    return b;
  }
  static SFUMATO_DEVICE Real real(Word a) {
    Real b;
    memcpy(&b, &a, sizeof b);
    return b;
  }
  /// All ones where a >= b, else zero.
  static SFUMATO_DEVICE Word at_least(Word a, std::uint32_t b) { return 0u - (a >= b ? 1u : 0u); }
};

/// a where the mask is ones, b where it is zero.
template <class Ops>
SFUMATO_DEVICE typename Ops::Real choose(const typename Ops::Word& mask,
                                         const typename Ops::Real& a, const typename Ops::Real& b) {
  return Ops::real((Ops::bits(a) & mask) | (Ops::bits(b) & ~mask));
}

/// Horner's rule with a multiplication and an addition per step.
template <class Ops>
SFUMATO_DEVICE typename Ops::Real horner_step(const typename Ops::Real& sum,
                                              const typename Ops::Real& x, float coefficient) {
  return Ops::add(Ops::mul(sum, x), coefficient);
}

/// ln u for u = (w + 1/2) 2^-64, w = high 2^32 + low. Relative error below 2e-7 for every w.
template <class Ops>
SFUMATO_DEVICE typename Ops::Real log_uniform(const typename Ops::Word& high,
                                              const typename Ops::Word& low) {
  using Word = typename Ops::Word;
  using Real = typename Ops::Real;
  // From sqrt(1/2) on we work with 1 - u = (~w + 1/2) 2^-64, whose leading zeros keep the small
  // logarithms of u near 1 accurate; below, u's own keep the tail.
  const Word near_one = Ops::at_least(high, 0xb504f334u);
  const Real z = Ops::add(Ops::mul(Ops::unsigned_real(high ^ near_one), 4294967296.0f),
                          Ops::add(Ops::unsigned_real(low ^ near_one), 0.5f));
  // z = 2^k m with m in [sqrt(1/2), sqrt(2)).
  const Word b = Ops::bits(z);
  const Word k = Ops::template arithmetic_shift_right<23>(b - 0x3f3504f3u);
  const Real m = Ops::real(b - (k << 23));
  const Real f = choose<Ops>(near_one, Ops::mul(z, -5.42101086242752217e-20f), Ops::add(m, -1.0f));
  const Real exponent = Ops::signed_real((k - 64u) & ~near_one);
  // ln(1 + f) - f + f^2/2 by the minimax polynomial of the Cephes library's logf (S. Moshier).
  const Real f2 = Ops::mul(f, f);
  Real p = Ops::add(Ops::mul(f, 7.0376836292e-2f), -1.1514610310e-1f);
  p = horner_step<Ops>(p, f, 1.1676998740e-1f);
  p = horner_step<Ops>(p, f, -1.2420140846e-1f);
  p = horner_step<Ops>(p, f, 1.4249322787e-1f);
  p = horner_step<Ops>(p, f, -1.6668057665e-1f);
  p = horner_step<Ops>(p, f, 2.0000714765e-1f);
  p = horner_step<Ops>(p, f, -2.4999993993e-1f);
  p = horner_step<Ops>(p, f, 3.3333331174e-1f);
  p = Ops::mul(Ops::mul(p, f), f2);
  // ln 2 in two parts, the first exact when multiplied by any exponent here.
  p = Ops::add(p, Ops::mul(exponent, -2.12194440e-4f));
  p = Ops::add(p, Ops::mul(f2, -0.5f));
  p = Ops::add(f, p);
  return Ops::add(p, Ops::mul(exponent, 0.693359375f));
}

/// cosine, sine := scale sqrt(-2 ln u) {cos, sin}(2 pi v), v = (angle + 1/2) 2^-32.
template <class Ops>
SFUMATO_DEVICE void normal_pair(const typename Ops::Word& high, const typename Ops::Word& low,
                                const typename Ops::Word& angle, float scale,
                                typename Ops::Real& cosine, typename Ops::Real& sine) {
  using Word = typename Ops::Word;
  using Real = typename Ops::Real;
  const Real radius = Ops::mul(Ops::sqrt(Ops::mul(log_uniform<Ops>(high, low), -2.0f)), scale);
  // angle = 2^30 quadrant + signed 30-bit rest: phi in (-pi/4, pi/4).
  const Word quadrant = (angle + 0x20000000u) >> 30;
  const Word rest = Ops::template arithmetic_shift_right<2>(angle << 2);
  const Real phi = Ops::mul(Ops::add(Ops::signed_real(rest), 0.5f), 1.46291807926715968e-9f);
  const Real x = Ops::mul(phi, phi);
  // Minimax polynomials of the Cephes library's sinf and cosf on [-pi/4, pi/4].
  Real s = Ops::add(Ops::mul(x, -1.9515295891e-4f), 8.3321608736e-3f);
  s = horner_step<Ops>(s, x, -1.6666654611e-1f);
  s = Ops::add(Ops::mul(Ops::mul(s, x), phi), phi);
  Real c = Ops::add(Ops::mul(x, 2.443315711809948e-5f), -1.388731625493765e-3f);
  c = horner_step<Ops>(c, x, 4.166664568298827e-2f);
  c = Ops::add(Ops::mul(Ops::mul(c, x), x), Ops::add(Ops::mul(x, -0.5f), 1.0f));
  const Word odd = 0u - (quadrant & 1u);
  const Word cosine_sign = ((quadrant + 1u) & 2u) << 30;
  const Word sine_sign = (quadrant & 2u) << 30;
  cosine = Ops::mul(Ops::real(Ops::bits(choose<Ops>(odd, s, c)) ^ cosine_sign), radius);
  sine = Ops::mul(Ops::real(Ops::bits(choose<Ops>(odd, c, s)) ^ sine_sign), radius);
}

/// The ten normals of one block of key stream, in slot order.
template <class Ops>
SFUMATO_DEVICE void block_normals(const typename Ops::Word (&words)[16], float scale,
                                  typename Ops::Real (&normals)[10]) {
  SFUMATO_UNROLL
  for (int pair = 0; pair < 5; ++pair)
    normal_pair<Ops>(words[3 * pair], words[3 * pair + 1], words[3 * pair + 2], scale,
                     normals[2 * pair], normals[2 * pair + 1]);
}

}  // namespace sfumato::device
