// The law of how many runs a private selection makes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <vector>

#include "ledger_support.h"
#include "sfumato/core/error.h"
#include "sfumato/privacy/secure_random.h"
#include "sfumato/privacy/selection.h"

namespace sfumato {
namespace {

using test::error_message;
using testing::HasSubstr;

TEST(SelectionLaw, ProbabilitiesAndTailsAreThoseOfTheDefinition) {
  for (const double eta : {0.0, 0.3, 1.0, 2.5, 40.0})
    for (const double mean : {1.001, 2.0, 10.0, 300.0}) {
      const SelectionLaw law({eta, mean});
      // P(k) in proportion to (1 - gamma)^k Gamma(k + eta) / k!, summed by brute force.
      std::vector<double> weights;
      double weight = 1;
      for (int k = 1; k < 1'000'000 && weight > 1e-290; ++k) {
        weights.push_back(weight);
        weight *= (1 - law.gamma()) * (k + eta) / (k + 1);
      }
      const double total = std::accumulate(weights.rbegin(), weights.rend(), 0.0);
      double mean_found = 0, tail = 0;
      for (std::size_t i = weights.size(); i-- > 0;) {
        const auto k = static_cast<std::int64_t>(i) + 1;
        tail += weights[i] / total;
        mean_found += static_cast<double>(k) * weights[i] / total;
        // What lies beyond the last weight is missing from the sum of the tail.
        if ((k > 3 && k % 97 != 0) || 2 * i > weights.size()) continue;
        EXPECT_NEAR(law.probability(k) / (weights[i] / total), 1, 1e-10) << eta << " " << k;
        EXPECT_NEAR(law.ln_at_least(k), std::log(tail), 1e-10) << eta << " " << mean << " " << k;
      }
      EXPECT_NEAR(mean_found / mean, 1, 1e-11) << eta;
      EXPECT_NEAR(law.mean() / mean, 1, 1e-12);
    }
}

struct Quantiles {
  double eta, mean;
  std::int64_t median, most_90, most_99;
};

TEST(SelectionLaw, QuantilesAreThoseOfTheTables) {
  for (const auto& [eta, mean, median, most_90, most_99] :
       {Quantiles{0, 5, 2, 12, 34}, Quantiles{0, 10, 4, 26, 81}, Quantiles{0, 30, 7, 83, 299},
        Quantiles{1, 5, 4, 11, 21}, Quantiles{1, 10, 7, 22, 44}, Quantiles{1, 30, 21, 68, 136}}) {
    const SelectionLaw law({eta, mean});
    EXPECT_EQ(law.quantile(0.5), median) << eta << " " << mean;
    EXPECT_EQ(law.quantile(0.9), most_90) << eta << " " << mean;
    EXPECT_EQ(law.quantile(0.99), most_99) << eta << " " << mean;
    for (const double share : {0.0, 0.1, 0.5, 0.9, 0.99, 0.9999}) {
      double below = 0;
      std::int64_t k = 0;
      while (below < share - 1e-13 || k == 0) below += law.probability(++k);
      EXPECT_EQ(law.quantile(share), k) << eta << " " << mean << " " << share;
    }
  }
  EXPECT_EQ(SelectionLaw({0, 1}).quantile(0.999999), 1);
  EXPECT_EQ(SelectionLaw({0, 1}).gamma(), 1);
}

/// Pearson's statistic over cells that expect at least 20 draws; the degrees of freedom in `cells`.
double chi_square(const SelectionLaw& law, const std::vector<std::int64_t>& draws, int& cells) {
  const auto count = static_cast<double>(draws.size());
  double sum = 0;
  cells = -1;
  for (std::int64_t low = 1; low > 0;) {
    double expected = 0;
    std::int64_t high = low;
    while (expected < 20 && high < low + 10'000) expected += count * law.probability(high++);
    const bool last = count * std::exp(law.ln_at_least(high)) < 20;
    if (last) expected = count * std::exp(law.ln_at_least(low));
    double found = 0;
    for (const std::int64_t draw : draws) found += draw >= low && (last || draw < high);
    sum += (found - expected) * (found - expected) / expected;
    ++cells;
    low = last ? 0 : high;
  }
  return sum;
}

TEST(SelectionLaw, DrawsFollowIt) {
  const SecureKey key = SecureKey::insecure_for_tests(5);
  std::int64_t number = 0;
  for (const Selection& selection :
       {Selection{0, 10}, Selection{1, 10}, Selection{0.5, 3}, Selection{7, 30}}) {
    const SelectionLaw law(selection);
    std::vector<std::int64_t> draws;
    ChaChaStream random(key, StreamDomain::kSideStatistic, ++number);
    for (int i = 0; i < 5'000; ++i) draws.push_back(draw_runs(law, random));
    int cells = 0;
    const double statistic = chi_square(law, draws, cells);
    EXPECT_GT(cells, 8);
    EXPECT_LT(statistic, cells + 5 * std::sqrt(2.0 * cells)) << to_text(selection);
    EXPECT_GT(statistic, cells - 5 * std::sqrt(2.0 * cells)) << to_text(selection);
  }
}

TEST(SelectionLaw, NoTailIsCut) {
  // A uniform number of e^-2000 is no double, and yet the answer is that of the geometric law.
  const SelectionLaw law({1, 10});
  EXPECT_EQ(law.runs_at(-2000), 1 + static_cast<std::int64_t>(-2000 / std::log(0.9)));
  const SelectionLaw long_tail({0, 1e5});
  const std::int64_t far = long_tail.runs_at(-50);
  EXPECT_GT(far, 1'000'000);
  EXPECT_GE(long_tail.ln_at_least(far), -50);
  EXPECT_LT(long_tail.ln_at_least(far + 1), -50);
}

TEST(Selection, IsReadAsItIsWritten) {
  for (const char* text : {"logarithmic:10", "geometric:2.5", "negative_binomial:0.25:1e3"}) {
    const Selection selection = parse_selection(text);
    EXPECT_EQ(parse_selection(to_text(selection)), selection);
    EXPECT_EQ(selection_from_json(to_json(selection)), selection);
  }
  EXPECT_EQ(parse_selection("negative_binomial:1:4"), (Selection{1, 4}));
  for (const char* text : {"", "logarithmic", "logarithmic:", "logarithmic:0.9", "logarithmic:1e7",
                           "geometric:1:2", "negative_binomial:3", "negative_binomial:-1:3",
                           "negative_binomial:nan:3", "poisson:3", "logarithmic:inf"})
    EXPECT_THROW(parse_selection(text), UsageError) << text;
  EXPECT_THAT(error_message<UsageError>([] { parse_selection("logarithmic"); }),
              HasSubstr("for example logarithmic:10"));
  nlohmann::json json = to_json(Selection{0, 10});
  json["cap"] = 100;  // another law
  EXPECT_THROW(selection_from_json(json), DataError);
  for (const char* key : {"law", "eta", "mean_runs"}) {
    json = to_json(Selection{0, 10});
    json.erase(key);
    EXPECT_THROW(selection_from_json(json), DataError) << key;
  }
}

}  // namespace
}  // namespace sfumato
