// Tails against scipy's (binom.sf, chi2, norm.logcdf, beta.ppf) and against direct sums.
#include "sfumato/audit/tail_probabilities.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "sfumato/core/error.h"
#include "sfumato/privacy/gaussian_mechanism.h"

namespace sfumato {
namespace {

void expect_close(double got, double want, double relative = 1e-9) {
  EXPECT_NEAR(got, want, relative * std::abs(want)) << got << " for " << want;
}

TEST(TailProbabilities, BinomialUpperTailsAreThoseOfScipy) {
  struct Case {
    int64_t n;
    double p;
    int64_t k;
    double tail;
  };
  for (const Case& c :
       {Case{10, 0.5, 8, 0.0546875}, Case{1000, 0.73, 790, 7.00118946555029e-06},
        Case{20000, 0.9, 18300, 2.52905693828899e-13},
        Case{1000000, 0.05, 51200, 2.08225298294273e-08}, Case{50, 0.001, 5, 2.0407861493411e-09},
        Case{1000000, 0.5, 510000, 2.77218164385426e-89}})
    expect_close(binomial_upper_tail(c.n, c.p, c.k), c.tail);
}

TEST(TailProbabilities, BinomialTailsAreSumsOfTheirMasses) {
  for (const int64_t n : {1, 7, 40}) {
    for (const double p : {0.0, 1e-3, 0.3, 0.5, 0.97, 1.0}) {
      double below = 0;
      for (int64_t k = 0; k <= n; ++k) {
        EXPECT_NEAR(binomial_upper_tail(n, p, k), 1 - below, 1e-13) << n << " " << p << " " << k;
        double mass = 1;
        for (int64_t i = 0; i < k; ++i)
          mass *= p * static_cast<double>(n - i) / static_cast<double>(i + 1);
        mass *= std::pow(1 - p, static_cast<double>(n - k));
        EXPECT_NEAR(std::exp(binomial_log_pmf(n, p, k)), mass, 1e-13);
        below += mass;
        EXPECT_NEAR(binomial_lower_tail(n, p, k), below, 1e-13);
      }
    }
  }
  EXPECT_EQ(binomial_upper_tail(5, 0.5, 6), 0);
  EXPECT_EQ(binomial_lower_tail(5, 0.5, -1), 0);
}

TEST(TailProbabilities, ChiSquareTailsAreThoseOfScipy) {
  struct Case {
    double x, degrees, upper, lower;
  };
  for (const Case& c : {Case{3, 1, 0.0832645166635504, 0.91673548333645},
                        Case{100, 60, 0.000916828861456084, 0.999083171138544},
                        Case{1006000, 1000000, 1.14450841829491e-05, 0.999988554915817},
                        Case{990000, 1000000, 0.99999999999935, 6.50017117992701e-13},
                        Case{0.5, 7, 0.999446481390425, 0.000553518609575035}}) {
    expect_close(chi_square_upper_tail(c.x, c.degrees), c.upper, 1e-8);
    expect_close(chi_square_lower_tail(c.x, c.degrees), c.lower, 1e-8);
  }
}

TEST(TailProbabilities, NormalLogarithmsAndTheirInverse) {
  const double values[][2] = {{-40, -804.6084420137539}, {-26, -342.1785089299279},
                              {-25, -316.6394080080203}, {-8, -35.01343715991456},
                              {-1, -1.841021645009263},  {0, -0.6931471805599453},
                              {2, -0.02301290932896348}};
  for (const auto& [x, log_cdf] : values) expect_close(ln_normal_cdf(x), log_cdf, 1e-12);
  for (const double x : {-37.0, -20.0, -6.0, -1.5, -1e-3, 0.0, 0.7, 3.0, 8.0})
    EXPECT_NEAR(normal_quantile(normal_cdf(x)), x, x > 3 ? 1e-1 : 1e-9 * (1 + std::abs(x))) << x;
  EXPECT_TRUE(std::isinf(normal_quantile(0)));
  EXPECT_THROW(normal_quantile(1.5), UsageError);
}

TEST(TailProbabilities, ClopperPearsonBoundsAreThoseOfScipy) {
  struct Case {
    int64_t k, n;
    double alpha, upper, lower;
  };
  for (const Case& c : {Case{0, 100, 0.05, 0.0295130496070399, 0},
                        Case{3, 100, 0.025, 0.08517605297428, 0.0062299715383064},
                        Case{50, 100, 0.001, 0.655201993574682, 0.344798006425318},
                        Case{99, 100, 0.05, 0.999487198583738, 0.953440188546461},
                        Case{7, 100000, 1e-08, 0.000349924991388793, 2.51001082794573e-06}}) {
    expect_close(clopper_pearson_upper(c.k, c.n, c.alpha), c.upper, 1e-8);
    EXPECT_NEAR(clopper_pearson_lower(c.k, c.n, c.alpha), c.lower, 1e-8 * c.lower);
  }
  EXPECT_EQ(clopper_pearson_upper(5, 5, 0.1), 1);
}

TEST(TailProbabilities, KolmogorovDistanceOfAHandCheckedSample) {
  std::vector<float> values{0.5f, -0.5f};
  // F_2 steps from 0 to 1/2 at -0.5, where Phi is 0.3085, and to 1 at 0.5, where it is 0.6915.
  EXPECT_NEAR(kolmogorov_distance_to_normal(values), normal_cdf(-0.5), 1e-12);
  EXPECT_EQ(kolmogorov_p_value(0, 10), 1);
  EXPECT_NEAR(kolmogorov_p_value(0.1, 1000), 2 * std::exp(-20.0), 1e-18);
}

TEST(TailProbabilities, ASumOfProductsIsBoundedAboveItsNormalTail) {
  // Never below what the central limit theorem says, and not far above it.
  for (const double z : {1.0, 4.0, 6.0}) {
    const double bound = product_sum_p_value(z * 1e4, 100'000'000);
    const double normal = 2 * normal_cdf(-z);
    EXPECT_GE(bound, normal);
    EXPECT_LE(bound, 20 * normal);
  }
  EXPECT_EQ(product_sum_p_value(0, 10), 1);
  EXPECT_LT(product_sum_p_value(100, 100), 1e-8) << "equal vectors";
}

}  // namespace
}  // namespace sfumato
