// What a card's plots show: upper bounds everywhere, the card's own where it has them.
#include "sfumato/run/card_plots.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "sfumato/core/bound_text.h"
#include "sfumato/core/text.h"
#include "sfumato/privacy/mechanism.h"
#include "sfumato/report/privacy_card.h"
#include "sfumato/report/svg_plot.h"
#include "src/run/card_curves.h"
#include "src/run/run_card.h"
#include "support/count_of.h"
#include "support/well_formed.h"

namespace sfumato {
namespace {

using Json = nlohmann::ordered_json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

MechanismPlan plotted_plan(double sample_rate, double noise_multiplier, std::int64_t steps) {
  MechanismPlan plan;
  plan.sample_rate = sample_rate;
  plan.noise_multiplier = noise_multiplier;
  plan.steps = steps;
  plan.delta = 1e-5;
  plan.expected_batch_size = 64;
  return plan;
}

Json plotted_card(const MechanismPlan& plan) {
  ChargedReleases charged;
  charged.steps = plan.steps;
  for (const StagePlan& stage : plan.stages) charged.stages[stage.name] = 1;
  return to_json(claim_card(plan, charged));
}

double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }

/// By bisection.
double normal_quantile(double share) {
  double low = -40, high = 40;
  for (int i = 0; i < 200; ++i) {
    const double middle = 0.5 * (low + high);
    (normal_cdf(middle) < share ? low : high) = middle;
  }
  return low;
}

/// δ of N(μ, 1) against N(0, 1) (Balle, Wang 2018, theorem 8).
double delta_of_gaussian(double mu, double epsilon) {
  return normal_cdf(mu / 2 - epsilon / mu) - std::exp(epsilon) * normal_cdf(-mu / 2 - epsilon / mu);
}

/// Where the curve of the plot that begins with `name` goes, in pixels.
SvgPoints curve_of_plot(const std::string& section, const std::string& name) {
  SvgPoints points;
  std::size_t at = section.find("aria-label=\"" + name);
  at = section.find("stroke-width=\"2\"", at);
  at = section.rfind("points=\"", at) + 8;
  for (const std::size_t end = section.find('"', at); at < end;) {
    const std::size_t comma = section.find(',', at), space = section.find(' ', at);
    points.emplace_back(*parse_double(section.substr(at, comma - at)),
                        *parse_double(section.substr(comma + 1, space - comma - 1)));
    at = space + 1;
  }
  return points;
}

// Of full batches everything has a closed form: n steps are one Gaussian release, μ = √n / σ.
TEST(CardPlots, OfGaussianReleasesAreTheClosedForms) {
  const double mu = 1.5;
  const Json card = plotted_card(plotted_plan(1, 10 / mu, 100));
  const auto curves = card_curves(card);
  ASSERT_TRUE(curves);
  ASSERT_GT(curves->spent.size(), 12u);
  for (const auto& [steps, epsilon] : curves->spent) {
    const double until = mu * std::sqrt(static_cast<double>(steps) / 100);
    if (steps == 0) {
      EXPECT_EQ(epsilon, 0);
    } else {
      EXPECT_NEAR(delta_of_gaussian(until, epsilon) / 1e-5, 1, 1e-6) << steps;
    }
  }
  for (const auto& [delta, epsilon] : curves->profile) {
    if (epsilon > 0) {
      EXPECT_NEAR(delta_of_gaussian(mu, epsilon) / delta, 1, 1e-6) << delta;
    } else {
      EXPECT_LE(delta_of_gaussian(mu, 0), delta);
    }
  }
  for (const double rate : {1e-3, 0.01, 0.05, 0.2, 0.5, 0.9}) {
    const double exact = normal_cdf(normal_quantile(rate) + mu);
    const double shown = largest_true_positive_rate(curves->profile, rate);
    EXPECT_GE(shown, exact) << rate;
    EXPECT_LE(shown, exact + 0.03) << rate;
  }
}

TEST(CardPlots, ByStepAreThePlansOwn) {
  MechanismPlan plan = plotted_plan(0.02, 1, 300);
  plan.candidates = 2;
  plan.adjacency = Adjacency::kAddRemove;
  plan.stages = {{.name = "label_histogram", .event = Phase{1, 50, 1}},
                 {.name = "declared_1", .event = GaussianRelease{1, 60, 2}, .declared = true}};
  for (const Accountant accountant : {Accountant::kPld, Accountant::kRdp}) {
    plan.accountant = accountant;
    const Json card = plotted_card(plan);
    const auto curves = card_curves(card);
    ASSERT_TRUE(curves);
    EXPECT_EQ(curves->spent.front().first, 0);
    EXPECT_GT(curves->spent.front().second, 0) << "stages are spent before the first step";
    EXPECT_EQ(curves->spent.back().first, 300);
    EXPECT_EQ(curves->spent.back().second, card["epsilon"].get<double>());
    for (const auto& [steps, epsilon] : curves->spent) {
      const PrivacyStatement exact = plan.statement_after(steps);
      EXPECT_GE(epsilon, exact.epsilon_lower.value_or(exact.epsilon)) << steps;
      EXPECT_NEAR(epsilon, exact.epsilon, 0.01 * exact.epsilon) << steps;
    }
    for (const auto& [delta, epsilon] : curves->profile)
      EXPECT_NEAR(epsilon,
                  account_epsilon(accountant, plan.events(300), delta, plan.adjacency).epsilon,
                  0.01 * epsilon + 1e-3)
          << delta;
  }
}

// What is charged is what counts, as on the card.
TEST(CardPlots, StepsLostInACrashAreShown) {
  MechanismPlan plan = plotted_plan(0.02, 1, 30);
  const Json card = to_json(claim_card(plan, {33, {}, {}}));
  EXPECT_EQ(card_curves(card)->spent.back().first, 33);
  EXPECT_EQ(card_curves(card)->spent.back().second, card["epsilon"].get<double>());
}

// δ(ε) of randomised response is a straight line over e^ε, hence the chords themselves.
TEST(CardPlots, ChordsDoNotCutCorners) {
  MechanismPlan plan = plotted_plan(0.02, 1, 30);
  plan.stages = {{.name = "declared_1", .event = ApproximateRelease{3, 0}, .declared = true}};
  const Json card = to_json(claim_card(plan, {0, {}, {}}));  // before the first step
  const std::string section = card_plots(card);
  EXPECT_THAT(section, HasSubstr("No steps are counted"));
  const SvgPoints points = curve_of_plot(section, "δ against ε");
  ASSERT_GT(points.size(), 20u);
  const auto curves = card_curves(card);
  double most = 0;
  for (const auto& [delta, epsilon] : curves->profile)
    if (delta >= 1e-8) most = 1.2 * *parse_double(epsilon_text(epsilon));
  const double decades = 8;
  const auto y_of = [&](double epsilon) {
    const double delta = (std::exp(3) - std::exp(epsilon)) / (std::exp(3) + 1);
    return 12 + 210 * -std::log10(delta) / decades;
  };
  for (const auto& [x, y] : points) {
    const double epsilon = (x + 0.06 - 56) / 320 * most;  // coordinates have one decimal
    if (epsilon > 2.5) continue;                          // falls off too steeply for pixels
    EXPECT_LE(y, y_of(epsilon) + 0.06) << epsilon;
  }
}

// The chord from (ε, δ) = (0, 1) to (ε, δ), and on, by brute force at every tenth of a pixel.
TEST(CardPlots, TheLineIsNeverBelowTheChords) {
  for (const double noise : {0.4, 2.0, 30.0}) {
    const Json card = plotted_card(plotted_plan(1, noise, 10));
    std::vector<std::pair<double, double>> corners = {{0, 1}};  // ε, δ
    const auto curves = card_curves(card);
    ASSERT_TRUE(curves);
    for (const auto& [delta, exact] : curves->profile) {
      const double epsilon = *parse_double(epsilon_text(exact));
      if (corners.size() > 1 && delta < 1e-8) continue;
      if (epsilon == corners.back().first) corners.pop_back();
      corners.emplace_back(epsilon, delta);
    }
    const double most = 1.2 * corners.back().first;
    const double decades = -std::log10(corners.back().second);
    const SvgPoints points = curve_of_plot(card_plots(card), "δ against ε");
    double farthest = 0;
    for (std::size_t i = 1; i < points.size(); ++i) {
      const auto [x0, y0] = points[i - 1];
      const auto [x1, y1] = points[i];
      for (double x = x0 + 0.05; x < x1; x += 0.1) {
        const double drawn = y0 + (y1 - y0) * (x - x0) / (x1 - x0);
        // Steep lines: a coordinate's last digit, and points that a third of a pixel left out.
        const double slack = 0.06 + 0.4 * std::abs((y1 - y0) / (x1 - x0));
        const double epsilon = (x - 56) / 320 * most;
        std::size_t next = 1;
        while (next + 1 < corners.size() && corners[next].first < epsilon) ++next;
        const auto [from, high] = corners[next - 1];
        const auto [to, low] = corners[next];
        if (epsilon >= to) continue;
        const double share = std::expm1(epsilon - from) / std::expm1(to - from);
        const double y = 12 + 210 * -std::log10(high + (low - high) * share) / decades;
        EXPECT_LE(drawn, y + slack) << noise << ": " << epsilon;
        farthest = std::max(farthest, y - drawn - slack);
      }
    }
    EXPECT_LT(farthest, 6) << "nor far above them";
  }
}

TEST(CardPlots, BetweenStepsShowThoseOfTheNextPoint) {
  const Json card = plotted_card(plotted_plan(0.02, 1, 300));
  const SvgPoints points = curve_of_plot(card_plots(card), "ε by step");
  ASSERT_GT(points.size(), 20u);
  for (std::size_t i = 1; i < points.size(); ++i)  // up, then on
    EXPECT_TRUE(i % 2 == 1 ? points[i].first == points[i - 1].first
                           : points[i].second == points[i - 1].second)
        << i;
}

TEST(CardPlots, SayWhatTheCardSays) {
  const Json card = plotted_card(plotted_plan(0.02, 1, 300));
  const std::string section = card_plots(card);
  EXPECT_EQ(test::xml_defect(section), "");
  EXPECT_EQ(test::count_of(section, "<svg"), 3u);
  EXPECT_EQ(test::count_of(section, "<details>"), 3u);
  const std::string epsilon = epsilon_text(card["epsilon"].get<double>());
  EXPECT_THAT(section, HasSubstr("<tr><td>300</td><td>" + epsilon + "</td></tr>"));
  EXPECT_THAT(section, HasSubstr("<tr><td>1e-05</td><td>" + epsilon + "</td></tr>"));
  for (const Json& point : card["epsilon_at_delta"])
    EXPECT_THAT(section, HasSubstr(fmt::format("<tr><td>{}</td><td>{}</td></tr>",
                                               point["delta"].get<double>(),
                                               epsilon_text(point["epsilon"].get<double>()))));
  for (const char* word : {"<script", "http", "href", "src=", "nan", "inf"})
    EXPECT_THAT(section, Not(HasSubstr(word)));
}

TEST(CardPlots, OfASelectionLeaveStepsOut) {
  MechanismPlan plan = plotted_plan(0.02, 2, 100);
  plan.accountant = Accountant::kRdp;
  plan.selection = Selection{0, 10};
  const std::string section = card_plots(plotted_card(plan));
  EXPECT_EQ(test::count_of(section, "<svg"), 2u);
  EXPECT_THAT(section,
              AllOf(HasSubstr("private selection as a whole"), Not(HasSubstr("ε by step:"))));
  EXPECT_EQ(card_plots_defect(plotted_card(plan), section), "");
}

TEST(CardPlots, OfNoClaimAreNone) {
  const Json card = plotted_card(plotted_plan(0.02, 1, 30));
  EXPECT_THAT(card_plots(voided(card, "so")), IsEmpty());
  EXPECT_THAT(card_plots(void_card("so")), IsEmpty());
  Json uncounted = card;
  uncounted["stages"] = Json::array();
  EXPECT_THAT(card_plots(uncounted), IsEmpty());
  EXPECT_THAT(card_plots_defect(voided(card, "so"), card_plots(card)), HasSubstr("proves none"));
}

TEST(CardPlots, AnEditedSectionIsNoticed) {
  const Json card = plotted_card(plotted_plan(0.02, 1, 30));
  const std::string section = card_plots(card);
  EXPECT_EQ(card_plots_in("before\n" + section + "<section>\nafter</section>\n"), section);
  EXPECT_EQ(card_plots_in("before <section>\n<h2>Settings</h2>\n</section>\n"), "");
  EXPECT_EQ(card_plots_defect(card, section), "");
  const auto edited = [&](const std::string& from, const std::string& to) {
    std::string text = section;
    const std::size_t at = text.find(from);
    EXPECT_NE(at, text.npos) << from;
    return card_plots_defect(card, text.replace(at, from.size(), to));
  };
  const std::string epsilon = epsilon_text(card["epsilon"].get<double>());
  EXPECT_THAT(edited("<td>30</td><td>" + epsilon, "<td>30</td><td>0.01"),
              HasSubstr("shows ε = '0.01' at step 30"));
  EXPECT_THAT(edited("<td>1e-05</td><td>" + epsilon, "<td>1e-05</td><td>nan"),
              HasSubstr("shows ε = 'nan' at δ = 1e-05"));
  // A larger one is no false claim, but has to be drawn.
  for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{
           {"<td>30</td><td>" + epsilon, "<td>30</td><td>99"},
           {"points=\"", "points=\"1,1 "},
           {"ε = " + epsilon, "ε = 0.01"},
           {"upper bound", "lower bound"},
           {"<tr><td>30</td>", "<tr><td>31</td>"}})
    EXPECT_THAT(edited(from, to), HasSubstr("do not say what its numbers say")) << from;
  // Of a card with other noise.
  EXPECT_THAT(card_plots_defect(card, card_plots(plotted_card(plotted_plan(0.02, 2, 30)))),
              HasSubstr("and by the card beside it"));
}

}  // namespace
}  // namespace sfumato
