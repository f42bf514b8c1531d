#pragma once
#include <complex>
#include <cstdint>
#include <span>
#include <vector>

namespace sfumato {

/// An even length >= n, at least 16, that transforms quickly: a power of two or 5/8 or 3/4 of one,
/// so that few lengths occur.
std::int64_t fast_fft_length(std::int64_t n);

/// Discrete Fourier transform of a real sequence of even length n: bins 0 ... n/2.
std::vector<std::complex<double>> real_fft(std::span<const double> values);

/// The inverse: n = 2 (bins - 1) real values; the bins are used up.
std::vector<double> inverse_real_fft(std::vector<std::complex<double>> bins);

}  // namespace sfumato
