// What a private selection costs, against reference values and against brute force.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

#include "sfumato/core/file.h"
#include "sfumato/privacy/accountant.h"
#include "sfumato/privacy/calibrate.h"
#include "sfumato/privacy/gaussian_mechanism.h"
#include "support/shared_folder.h"

namespace sfumato {
namespace {

double epsilon_of(const std::vector<PrivacyEvent>& run, double delta,
                  const std::optional<Selection>& selection,
                  Accountant accountant = Accountant::kPld,
                  Adjacency adjacency = Adjacency::kZeroOut) {
  return account_epsilon(accountant, run, delta, adjacency, selection).epsilon;
}

TEST(SelectionBound, OfAGaussianIsThatOfTheReference) {
  SFUMATO_NEEDS_SHARED("reference/selection_reference.json");
  const auto reference = nlohmann::json::parse(
      read_file(test::shared_folder() / "reference/selection_reference.json"));
  int rows = 0;
  for (const auto& row : reference.at("gaussian")) {
    const Selection selection{row.at("eta"), row.at("mean")};
    EXPECT_NEAR(SelectionLaw(selection).gamma() / row.at("gamma").get<double>(), 1, 1e-9);
    const double epsilon =
        epsilon_of({GaussianRelease{row.at("mu"), 1}}, row.at("delta"), selection);
    EXPECT_NEAR(epsilon, row.at("eps").get<double>(), 3e-9) << row;
    ++rows;
  }
  EXPECT_GE(rows, 36);
}

TEST(SelectionBound, OfTrainingIsThatOfTheReference) {
  SFUMATO_NEEDS_SHARED("reference/selection_reference.json");
  const auto reference = nlohmann::json::parse(
      read_file(test::shared_folder() / "reference/selection_reference.json"));
  int rows = 0;
  for (const auto& row : reference.at("dpsgd")) {
    const Phase run{row.at("q"), row.at("sigma"), row.at("steps")};
    const double epsilon =
        epsilon_of({run}, row.at("delta"), Selection{row.at("eta"), row.at("mean")});
    // The reference composes on a grid of 1e-4, from above.
    const double theirs = row.at("eps");
    EXPECT_LT(epsilon, theirs + 2e-3) << row;
    EXPECT_GT(epsilon, theirs * 0.98 - 2e-3) << row;
    ++rows;
  }
  EXPECT_GE(rows, 4);
}

// The same on paper, where no reference is at hand: 1.45, where composing ten runs costs 3.53 and
// RDP 1.82.
TEST(SelectionBound, TenRunsCostLessThanTwo) {
  const std::vector<PrivacyEvent> run = {Phase{1.0 / 14, 13.55, 2100}};
  const Selection ten{0, 10};
  EXPECT_NEAR(epsilon_of(run, 1.67e-6, std::nullopt), 0.999, 2e-3);
  EXPECT_NEAR(epsilon_of(run, 1.67e-6, ten), 1.45, 6e-3);
  EXPECT_NEAR(epsilon_of(run, 1.67e-6, ten, Accountant::kRdp), 1.82, 6e-3);
  EXPECT_NEAR(epsilon_of({Phase{1.0 / 14, 13.55, 21000}}, 1.67e-6, std::nullopt), 3.53, 1e-2);
}

/// (1 - gamma) delta_Q(epsilon_1) <= gamma (e^epsilon_1 - 1) and mean delta_Q(epsilon) <= delta, by
/// the closed form of a Gaussian: the bound is never below what the two conditions ask for.
TEST(SelectionBound, IsNotBelowItsOwnConditions) {
  for (const double mu : {0.05, 0.4, 1.0, 3.0})
    for (const Selection& selection : {Selection{0, 1.5}, Selection{0, 10}, Selection{1, 40},
                                       Selection{4, 3}, Selection{0.5, 1000}}) {
      const SelectionLaw law(selection);
      const double gamma = law.gamma(), delta = 1e-6;
      const auto least = [](const std::function<bool(double)>& holds) {
        double low = 0, high = 100;
        for (int i = 0; i < 100; ++i) (holds(0.5 * (low + high)) ? high : low) = 0.5 * (low + high);
        return low;
      };
      const double first = least([&](double at) {
        return (1 - gamma) * gaussian_delta(mu, at) <= gamma * std::expm1(at);
      });
      const double second =
          least([&](double at) { return law.mean() * gaussian_delta(mu, at) <= delta; });
      const double bound = epsilon_of({GaussianRelease{mu, 1}}, delta, selection);
      const double by_rdp =
          epsilon_of({GaussianRelease{mu, 1}}, delta, selection, Accountant::kRdp);
      const double paper = second + (1 + selection.eta) * first;
      EXPECT_GE(bound, std::min(paper, by_rdp)) << mu << " " << to_text(selection);
      EXPECT_LE(bound, paper * (1 + 1e-6)) << mu << " " << to_text(selection);
    }
}

/// A selection among runs that first throw a die for their settings and then release x + N(0, 1),
/// where x is 0 or mu of the setting; the score is any function of setting and release.
struct Case {
  std::vector<double> weights, mus;
  std::function<double(std::size_t, double)> score;
};

constexpr int kCells = 1200;
constexpr double kReach = 9;

/// P of every cell of (setting, release), where the record moves the release by `moves` times the
/// setting's mu (0: it is not there) if it joins the step, with probability `sample_rate`.
std::vector<double> masses(const Case& of, double moves, double sample_rate = 1) {
  std::vector<double> all;
  for (std::size_t s = 0; s < of.weights.size(); ++s)
    for (int i = 0; i < kCells; ++i) {
      const double low = -kReach + 2 * kReach * i / kCells, high = low + 2 * kReach / kCells;
      const auto cell = [&](double shift) {
        return normal_cdf(high - shift) - normal_cdf(low - shift);
      };
      all.push_back(of.weights[s] *
                    ((1 - sample_rate) * cell(0) + sample_rate * cell(moves * of.mus[s])));
    }
  return all;
}

/// The probability of each cell to be the best of K, ties by a coin: exactly, by the generating
/// function of K. A tie is broken as if every run had a uniform number besides: the mass of its
/// level is spread evenly over the difference of the function.
std::vector<double> best_of(const Case& of, const std::vector<double>& run, const SelectionLaw& law,
                            double eta) {
  std::vector<std::size_t> order(run.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  const auto score = [&](std::size_t cell) {
    return of.score(cell / kCells,
                    -kReach + 2 * kReach * (static_cast<double>(cell % kCells) + 0.5) / kCells);
  };
  std::ranges::stable_sort(order, [&](auto a, auto b) { return score(a) < score(b); });
  const double gamma = law.gamma();
  // E[z^K], and by differences without cancellation where both are near 1 it need not be exact.
  const auto pgf = [&](double z) {
    if (eta == 0) return std::log1p(-(1 - gamma) * z) / std::log(gamma);
    return std::expm1(-eta * std::log1p(-(1 - gamma) * z)) / std::expm1(-eta * std::log(gamma));
  };
  std::vector<double> best(run.size());
  double below = 0;
  for (std::size_t i = 0; i < order.size();) {
    double level = 0;
    std::size_t end = i;
    while (end < order.size() && score(order[end]) == score(order[i])) level += run[order[end++]];
    const double share = level > 0 ? (pgf(std::min(1.0, below + level)) - pgf(below)) / level : 0;
    for (; i < end; ++i) best[order[i]] = run[order[i]] * share;
    below += level;
  }
  return best;
}

double hockey_stick(const std::vector<double>& p, const std::vector<double>& q, double epsilon) {
  double sum = 0;
  for (std::size_t i = 0; i < p.size(); ++i) sum += std::max(0.0, p[i] - std::exp(epsilon) * q[i]);
  return sum;
}

/// With a mu of 1: scores that know the release, its tail, nothing or the setting.
std::vector<Case> cases() {
  return {{{1}, {1}, [](std::size_t, double x) { return x; }},
          {{1}, {1}, [](std::size_t, double x) { return -x; }},
          {{1}, {1}, [](std::size_t, double x) { return std::fabs(x - 1); }},
          {{1}, {1}, [](std::size_t, double) { return 0.0; }},                  // all ties
          {{1}, {1}, [](std::size_t, double x) { return std::floor(2 * x); }},  // some ties
          {{1}, {1}, [](std::size_t, double x) { return std::sin(5 * x); }},
          {{1}, {1}, [](std::size_t, double x) { return x > 2 ? 2.0 : 0.0; }},
          // Settings that see less of the record, or push the other way; drawn with unlike chances.
          {{0.5, 0.3, 0.2}, {1, -1, 0.3}, [](std::size_t s, double x) { return s == 1 ? -x : x; }},
          {{0.9, 0.1}, {0, 1}, [](std::size_t s, double x) { return s == 1 ? 1 + x : 0.0; }},
          {{0.6, 0.4}, {0.7, 1}, [](std::size_t s, double) { return s == 1 ? 1.0 : 0.0; }}};
}

const std::vector<Selection>& selections() {
  static const std::vector<Selection> all = {{0, 3}, {0, 10}, {1, 10}, {0.5, 100}, {3, 5}};
  return all;
}

TEST(SelectionBound, BruteForceIsNeverAboveIt) {
  double nearest = 0;
  for (const double mu : {0.3, 1.0})
    for (const Selection& selection : selections()) {
      const SelectionLaw law(selection);
      for (Case of : cases()) {
        for (double& shift : of.mus) shift *= mu;
        const std::vector<double> with = best_of(of, masses(of, 1), law, selection.eta);
        const std::vector<double> without = best_of(of, masses(of, 0), law, selection.eta);
        for (const double delta : {0.1, 1e-3, 1e-5}) {
          const double epsilon = epsilon_of({GaussianRelease{mu, 1}}, delta, selection);
          for (const auto& [p, q] : {std::pair(&with, &without), std::pair(&without, &with)}) {
            const double found = hockey_stick(*p, *q, epsilon);
            EXPECT_LE(found, delta) << mu << " " << to_text(selection) << " " << delta;
            nearest = std::max(nearest, found / delta);
          }
        }
      }
    }
  EXPECT_GT(nearest, 0.2) << "the cases come nowhere near the bound, so that they test little";
}

/// One step of training: the record joins with probability q, so that each run is a mixture. Of
/// records that are replaced, the other one pushes as far the other way.
TEST(SelectionBound, BruteForceOfSampledRunsIsNeverAboveIt) {
  struct Pair {
    double sample_rate, noise_multiplier;
  };
  for (const Adjacency adjacency :
       {Adjacency::kZeroOut, Adjacency::kAddRemove, Adjacency::kReplaceOne}) {
    double nearest = 0;
    for (const auto& [q, sigma] : {Pair{0.02, 0.5}, Pair{0.2, 0.7}, Pair{0.6, 1.5}})
      for (const Selection& selection : selections()) {
        const SelectionLaw law(selection);
        std::vector<double> bounds;
        const std::vector<double> deltas = {0.1, 1e-3, 1e-5};
        for (const double delta : deltas)
          bounds.push_back(
              epsilon_of({Phase{q, sigma, 1}}, delta, selection, Accountant::kPld, adjacency));
        for (Case of : cases()) {
          for (double& shift : of.mus) shift /= sigma;
          const double other = adjacency == Adjacency::kReplaceOne ? -1 : 0;
          const auto one = best_of(of, masses(of, 1, q), law, selection.eta);
          const auto two = best_of(of, masses(of, other, q), law, selection.eta);
          for (std::size_t i = 0; i < deltas.size(); ++i)
            for (const auto& [p, r] : {std::pair(&one, &two), std::pair(&two, &one)}) {
              const double found = hockey_stick(*p, *r, bounds[i]);
              EXPECT_LE(found, deltas[i])
                  << q << " " << sigma << " " << to_text(selection) << " " << to_string(adjacency);
              nearest = std::max(nearest, found / deltas[i]);
            }
        }
      }
    EXPECT_GT(nearest, 0.1) << to_string(adjacency) << ": so far below, this tests little";
  }
}

TEST(SelectionBound, OneRunCostsWhatItCosts) {
  const std::vector<PrivacyEvent> run = {Phase{0.01, 1, 1000}, GaussianRelease{1, 30}};
  for (const Accountant accountant : {Accountant::kPld, Accountant::kRdp}) {
    const double alone = epsilon_of(run, 1e-5, std::nullopt, accountant);
    EXPECT_EQ(epsilon_of(run, 1e-5, Selection{0, 1}, accountant), alone);
    EXPECT_EQ(epsilon_of(run, 1e-5, Selection{1, 1}, accountant), alone);
  }
  const double alone = epsilon_of(run, 1e-5, std::nullopt);
  EXPECT_NEAR(epsilon_of(run, 1e-5, Selection{0, 1.0001}), alone, 1e-3);
  EXPECT_GE(epsilon_of(run, 1e-5, Selection{0, 1.0001}), alone - 5e-4);
}

TEST(SelectionBound, GrowsWithRunsAndShape) {
  for (const std::vector<PrivacyEvent>& run :
       {std::vector<PrivacyEvent>{GaussianRelease{1, 2}}, {Phase{0.02, 1.5, 500}}})
    for (const Accountant accountant : {Accountant::kPld, Accountant::kRdp}) {
      double before = 0;
      for (const double mean : {1.0, 2.0, 5.0, 20.0, 200.0}) {
        const double now = epsilon_of(run, 1e-6, Selection{0, mean}, accountant);
        EXPECT_GT(now, before) << mean;
        before = now;
      }
      before = 0;
      for (const double eta : {0.0, 0.5, 1.0, 3.0}) {
        const double now = epsilon_of(run, 1e-6, Selection{eta, 10}, accountant);
        EXPECT_GT(now, before) << eta;
        before = now;
      }
    }
}

TEST(SelectionBound, HoldsUnderEveryAdjacency) {
  // Replacing moves a record twice as far, so that it costs what half the noise does.
  for (const Selection& selection : {Selection{0, 10}, Selection{1, 3}}) {
    const double add =
        epsilon_of({Phase{1, 4, 1}}, 1e-5, selection, Accountant::kPld, Adjacency::kAddRemove);
    const double replace =
        epsilon_of({Phase{1, 8, 1}}, 1e-5, selection, Accountant::kPld, Adjacency::kReplaceOne);
    EXPECT_NEAR(add, replace, 1e-9);
    const double sampled =
        epsilon_of({Phase{0.1, 2, 100}}, 1e-5, selection, Accountant::kPld, Adjacency::kReplaceOne);
    EXPECT_GT(sampled, 1.2 * epsilon_of({Phase{0.1, 2, 100}}, 1e-5, selection));
  }
}

TEST(SelectionBound, DeltaIsTheInverseOfEpsilon) {
  const std::vector<PrivacyEvent> run = {Phase{0.02, 1.5, 500}};
  for (const Selection& selection : {Selection{0, 10}, Selection{1, 3}}) {
    const double epsilon = epsilon_of(run, 1e-6, selection);
    const double delta =
        account_delta(Accountant::kPld, run, epsilon, Adjacency::kZeroOut, selection).delta;
    EXPECT_NEAR(delta / 1e-6, 1, 0.02);
    EXPECT_EQ(account_delta(Accountant::kPld, run, 0, Adjacency::kZeroOut, selection).delta, 1);
    EXPECT_LT(
        account_delta(Accountant::kRdp, run, 2 * epsilon, Adjacency::kZeroOut, selection).delta,
        1e-5);
  }
}

TEST(SelectionBound, CalibratesTheNoiseOfOneRun) {
  for (const Selection& selection : {Selection{0, 10}, Selection{1, 5}})
    for (const Accountant accountant : {Accountant::kPld, Accountant::kRdp}) {
      CalibrationTarget target{.epsilon = 2, .delta = 1e-5};
      target.selection = selection;
      target.accountant = accountant;
      target.spent = {GaussianRelease{1, 20}};
      const Calibration found = calibrate_noise_multiplier(target, 0.02, 500);
      EXPECT_LE(found.statement.epsilon, 2);
      EXPECT_GT(found.statement.epsilon, 2 * (1 - 2e-4));
      EXPECT_EQ(found.statement.epsilon,
                epsilon_of({target.spent.front(), found.phase}, 1e-5, selection, accountant));
      const Calibration steps =
          calibrate_steps(target, 0.02, found.phase.noise_multiplier * (1 + 1e-9));
      EXPECT_NEAR(static_cast<double>(steps.phase.steps), 500, 1);
    }
}

TEST(SelectionBound, AReleaseThatMayFailCounts) {
  for (const Accountant accountant : {Accountant::kPld, Accountant::kRdp}) {
    const double epsilon = epsilon_of({ApproximateRelease{0.5, 1e-7}, GaussianRelease{1, 4}}, 1e-5,
                                      Selection{0, 10}, accountant);
    EXPECT_GT(epsilon, epsilon_of({GaussianRelease{1, 4}}, 1e-5, Selection{0, 10}, accountant));
    EXPECT_LT(epsilon, 6);
    // Ten runs may fail ten times as often.
    EXPECT_EQ(epsilon_of({ApproximateRelease{0.5, 2e-6}}, 1e-5, Selection{0, 10}, accountant),
              std::numeric_limits<double>::infinity());
  }
}

}  // namespace
}  // namespace sfumato
