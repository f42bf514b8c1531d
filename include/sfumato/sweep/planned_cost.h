#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "sfumato/config/config.h"
#include "sfumato/privacy/accountant.h"
#include "sfumato/privacy/event.h"
#include "sfumato/report/privacy_card.h"
#include "sfumato/sweep/sweep_plan.h"

namespace sfumato {

/// What a run will cost once all its steps are taken.
struct PlannedCost {
  bool is_private = true;
  double epsilon = 0;
  double delta = 0;
  std::optional<double> noise_multiplier;  ///< empty where stages decide it: training says it
  std::vector<PrivacyEvent> events;        ///< empty where stages decide the noise
  Accountant accountant = Accountant::kPld;
  Adjacency adjacency = Adjacency::kZeroOut;
};

/// Of the training that `config` describes on a store with this bound of records per unit; of a run
/// of a private selection, what the whole selection costs, while its events are one run's. With
/// stages and a target the target itself is the cost. UsageError where stages without a target
/// leave it to the run; PrivacyError where the target cannot be reached.
PlannedCost planned_cost(const Config& config, std::int64_t records_per_unit);

/// Of all these runs on the same records together: composed at the largest δ, or, where a run's
/// noise is not known beforehand, ε and δ added up. Runs that are not private: infinite.
PlannedCost together(std::span<const PlannedCost> runs);

/// Of every run of a plan, in order.
std::vector<PlannedCost> run_costs(const SweepPlan& plan);
/// Of the whole plan, whose runs cost that: together, but of a private selection each cost is the
/// whole's already.
PlannedCost whole_cost(const SweepPlan& plan, std::span<const PlannedCost> runs);
/// What the card of each run says of all: nothing of public images, of runs without noise, of a
/// single run, and of a private selection, whose cards are those of the whole.
std::optional<SweepTotal> sweep_total(const SweepPlan& plan);

}  // namespace sfumato
