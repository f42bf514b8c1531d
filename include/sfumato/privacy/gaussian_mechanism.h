#pragma once

namespace sfumato {

/// P[Z <= x] for a standard normal Z.
double normal_cdf(double x);
/// ln of the standard normal distribution function, to full relative accuracy in its lower tail.
double ln_normal_cdf(double x);

/// delta of the Gaussian mechanism N(0, 1) against N(mu, 1), in closed form (Balle, Wang 2018,
/// theorem 8): Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu).
double gaussian_delta(double mu, double epsilon);
/// Also the definition of mu-Gaussian differential privacy (Dong, Roth, Su 2019, corollary 2.13).
/// mu <= 0: 0.
/// Its inverses: the smallest epsilon >= 0 at delta, and the largest mu that keeps (epsilon,
/// delta).
double gaussian_epsilon(double mu, double delta);
double gaussian_mu(double epsilon, double delta);

}  // namespace sfumato
