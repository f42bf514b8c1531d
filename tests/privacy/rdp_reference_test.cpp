// Published and independently computed epsilons that RDP must lie between: never below the privacy
// loss distribution (PLD, nearly exact), never above RDP over the customary grid of orders.
#include <gtest/gtest.h>

#include "privacy/to_events.h"
#include "sfumato/privacy/rdp.h"

namespace sfumato {
namespace {

using test::to_events;

double epsilon(const std::vector<Phase>& phases, double delta,
               Adjacency adjacency = Adjacency::kAddRemove) {
  return epsilon_from_rdp(to_events(phases), delta, adjacency).epsilon;
}

struct RdpRow {
  double sample_rate, noise_multiplier;
  std::int64_t steps;
  double pld, rdp;  // both by dp_accounting, delta 1e-6
};

constexpr RdpRow kRows[] = {
    {0.001, 0.8, 100, 0.260339, 1.37107},    {0.001, 1.5, 100, 0.029269, 0.31614},
    {0.001, 2.0, 100, 0.018962, 0.16442},    {0.001, 3.0, 100, 0.011278, 0.14038},
    {0.05, 0.8, 100, 6.730629, 7.66564},     {0.05, 1.5, 100, 1.943736, 2.15418},
    {0.05, 2.0, 100, 1.273560, 1.39696},     {0.05, 3.0, 100, 0.757884, 0.82678},
    {0.2, 0.8, 100, 24.322620, 26.47750},    {0.2, 1.5, 100, 8.488586, 9.21944},
    {0.2, 2.0, 100, 5.661788, 6.12496},      {0.2, 3.0, 100, 3.371055, 3.63967},
    {0.001, 0.8, 1000, 0.467695, 1.46188},   {0.001, 1.5, 1000, 0.089884, 0.33380},
    {0.001, 2.0, 1000, 0.061314, 0.17451},   {0.001, 3.0, 1000, 0.037767, 0.14374},
    {0.05, 0.8, 1000, 19.515033, 21.22392},  {0.05, 1.5, 1000, 6.199695, 6.66795},
    {0.05, 2.0, 1000, 4.162611, 4.47550},    {0.05, 3.0, 1000, 2.517457, 2.70863},
    {0.001, 0.8, 20000, 1.285932, 1.89720},  {0.001, 1.5, 20000, 0.426993, 0.49699},
    {0.001, 2.0, 20000, 0.295837, 0.32272},  {0.001, 3.0, 20000, 0.184045, 0.21460},
    {0.05, 1.5, 20000, 38.295518, 40.39084}, {0.05, 2.0, 20000, 24.410939, 25.83791},
    {0.05, 3.0, 20000, 13.950616, 14.81531}, {0.001, 0.8, 50000, 2.024423, 2.40747},
    {0.001, 1.5, 50000, 0.694215, 0.75058},  {0.001, 2.0, 50000, 0.481374, 0.52130},
    {0.001, 3.0, 50000, 0.299747, 0.32533},  {0.05, 1.5, 50000, 73.178480, 81.30377},
    {0.05, 2.0, 50000, 45.225790, 47.91979}, {0.05, 3.0, 50000, 24.931240, 26.36298},
};

TEST(RdpReference, LiesBetweenPldAndRdpOnAGrid) {
  for (const RdpRow& row : kRows) {
    const double ours = epsilon({{row.sample_rate, row.noise_multiplier, row.steps}}, 1e-6);
    EXPECT_LE(ours, row.rdp + 1e-5)
        << row.sample_rate << ":" << row.noise_multiplier << ":" << row.steps;
    EXPECT_GE(ours, row.pld) << row.sample_rate << ":" << row.noise_multiplier << ":" << row.steps;
  }
}

struct PhasesRow {
  std::vector<Phase> phases;
  double delta, pld, rdp;
};

// RDP at the best real order, by the quadrature of a separate numpy program.
// `rdp`: the customary conversion at the best real order; the exact one is a little below.
TEST(RdpReference, LiesJustBelowTheBestRealOrder) {
  const PhasesRow rows[] = {
      {{{1, 1, 1}}, 1e-5, 4.377178, 4.728387},
      {{{1, 2, 10}}, 1e-6, 8.306225, 8.845889},
      {{{0.01, 1, 1000}}, 1e-5, 1.828237, 2.101322},
      {{{0.01, 1, 10000}}, 1e-5, 6.187716, 6.712272},
      {{{0.01, 0.5, 1000}}, 1e-5, 13.360826, 15.414430},
      {{{0.04, 1.5, 2250}}, 1e-5, 6.768781, 7.328350},
      {{{0.1, 3, 512}}, 1e-6, 3.769687, 4.050944},
      {{{0.256, 6, 5000}}, 1e-5, 16.959550, 18.111249},
      {{{0.08192, 10, 2500}}, 1e-5, 1.606211, 1.749095},
      {{{0.001, 1, 100000}}, 1e-6, 1.861052, 2.004045},
      {{{1e-4, 0.8, 1000000}}, 1e-7, 0.912770, 1.506597},
      {{{0.001, 2, 1000000}}, 1e-6, 2.420854, 2.597514},
      {{{1, 5, 1}, {0.05, 2, 400}, {0.01, 1.2, 3000}}, 1e-6, 3.869819, 4.161948},
      {{{0.01, 1, 1000}}, 1e-12, 3.914305, 4.353185},
  };
  for (const PhasesRow& row : rows) {
    const double ours = epsilon(row.phases, row.delta);
    EXPECT_LE(ours, row.rdp + 1.5e-6)
        << row.phases[0].sample_rate << ":" << row.phases[0].noise_multiplier;
    EXPECT_GE(ours, row.rdp * 0.99);
    EXPECT_GE(ours, row.pld);
  }
}

// Published RDP over some grid of orders: an upper bound for ours, PLD a lower one.
TEST(RdpReference, NeverAboveOtherAccountants) {
  const PhasesRow rows[] = {
      {{{0.01, 0.4, 100}}, 1e-5, 12.224688, 14.8077},
      {{{0.5, 20, 2000}}, 1e-5, 4.990559, 5.386538},
      {{{0.01, 1, 500}, {0.02, 1.5, 500}}, 1e-5, 1.897483, 2.147668},
      {{{0.01, 1, 1000}}, 1e-8, 2.697875, 3.08844},
      {{{0.01, 1, 1000}}, 1e-10, 3.290518, 3.72523},
      {{{0.01, 0.7, 120}}, 1e-5, 2.4612381, 3.2392676},
      {{{0.01, 0.35, 120}}, 1e-5, 18.6977407, 22.6248601},
      {{{1, 0.7, 2}}, 1e-5, 10.1224946, 10.8602036},
      {{{1, 0.35, 2}}, 1e-5, 24.7160779, 26.2880374},
      {{{1, 1, 5}}, 1e-6, 12.595, 13.3765},
      {{{0.0064, 1, 782}}, 1e-6, 1.199, 1.6165},
      {{{1, 4.530877117, 1}}, 1e-6, 0.93, 1.0000001},
      {{{0.1, 5, 50}, {1, 50, 1}, {0.04, 1.5, 2250}}, 1e-5, 6.808, 7.3705},
  };
  for (const PhasesRow& row : rows) {
    const double ours = epsilon(row.phases, row.delta);
    EXPECT_LE(ours, row.rdp) << row.phases[0].sample_rate << ":" << row.phases[0].noise_multiplier;
    EXPECT_GE(ours, row.pld) << row.phases[0].sample_rate << ":" << row.phases[0].noise_multiplier;
    EXPECT_LE(ours, 1.35 * row.pld) << "much looser than RDP should be";
  }
}

// PLD of the replace-one pair; RDP must not claim less, nor much more.
TEST(RdpReference, ReplaceOneIsAbovePld) {
  const PhasesRow rows[] = {{{{0.01, 1, 1000}}, 1e-5, 2.843, 3.2},
                            {{{0.04, 1.5, 2250}}, 1e-5, 13.488, 14.6},
                            {{{1, 1, 1}}, 1e-5, 9.9973, 10.8}};
  for (const PhasesRow& row : rows) {
    const double ours = epsilon(row.phases, row.delta, Adjacency::kReplaceOne);
    EXPECT_GE(ours, row.pld);
    EXPECT_LE(ours, row.rdp);
  }
}

}  // namespace
}  // namespace sfumato
