#include "sfumato/run/store_uses.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "sfumato/core/error.h"
#include "sfumato/run/public_uses.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

/// The ledger of a run that is still where its witness says, if it is whole.
std::optional<LedgerSummary> ledger_at(const Witness& witness) {
  std::error_code ignored;
  const fs::path path = fs::path(witness.place) / "ledger.jsonl";
  if (witness.place.empty() || !fs::is_regular_file(path, ignored)) return std::nullopt;
  try {
    LedgerSummary ledger = verify_ledger(path);
    if (ledger.problems.empty() && contradiction(witness, ledger).empty() &&
        ledger.run_id == witness.run_id)
      return ledger;
  } catch (const DataError&) {
    // Not readable from here, which is as good as not there.
  }
  return std::nullopt;
}

StoreRun count(const Witness& witness) {
  StoreRun run{.witness = witness,
               .charged_steps = witness.charged_steps,
               .counted_from = "witness",
               .part = {}};
  if (const auto ledger = ledger_at(witness)) {
    run.charged_steps = ledger->charged_steps;
    run.counted_from = "ledger";
  } else if (!witness.stopped) {
    // It was running when it was last heard of: it may have charged all that it was allowed.
    run.charged_steps = std::max(witness.charged_steps, witness.plan.steps);
    run.counted_from = "plan";
  }
  run.epsilon = witness.plan.epsilon_after(run.charged_steps);
  return run;
}

/// Of a run alone, at the delta of a sweep: epsilons of one delta alone can be compared.
double epsilon_at(const StoreRun& run, double delta) {
  MechanismPlan plan = run.witness.plan;
  plan.delta = delta;
  return plan.epsilon_after(run.charged_steps);
}

bool lies_in(const StoreRun& run, const SelectionUse& use) {
  return (use.parts || run.witness.plan.selection) &&
         fs::path(run.witness.place).parent_path() == fs::path(use.place);
}

/// Marks the runs that count within a sweep: of those that lie where its runs do the cheapest, no
/// more than there are, and none that costs more than all of them (but for the rounding of what was
/// noted). What somebody trains beside them counts by itself, and is never less than what does.
void count_within(const SelectionUse& use, std::vector<StoreRun>& runs) {
  std::vector<std::pair<double, StoreRun*>> by_cost;
  for (StoreRun& run : runs) {
    if (run.in_a_sweep || !lies_in(run, use)) continue;
    const double epsilon = epsilon_at(run, use.delta);
    if (epsilon <= use.epsilon * (1 + 1e-3)) by_cost.emplace_back(epsilon, &run);
  }
  std::ranges::stable_sort(by_cost, {}, &std::pair<double, StoreRun*>::first);
  for (std::size_t i = 0; i < by_cost.size() && static_cast<std::int64_t>(i) < use.runs; ++i)
    by_cost[i].second->in_a_sweep = true;
}

/// What one record may have paid.
struct Bill {
  std::vector<PrivacyEvent> events;
  double run_delta = 0;   ///< the largest of single runs
  double note_delta = 0;  ///< of notes, added up

  double delta() const { return run_delta + note_delta; }
  void add(const Bill& other) {
    events.insert(events.end(), other.events.begin(), other.events.end());
    run_delta = std::max(run_delta, other.run_delta);
    note_delta += other.note_delta;
  }
  void add(const SelectionUse& use) {
    events.push_back(ApproximateRelease{use.epsilon, use.delta});
    note_delta += use.delta * (1 + 1e-9);  // the sum must not be short of what is composed
  }
  void add(const StoreRun& run) {
    // Each run is listed by itself, so that none is counted as another's candidate or among those
    // of a selection as well.
    MechanismPlan plan = run.witness.plan;
    plan.candidates = 1;
    plan.selection.reset();
    const auto more = plan.events(run.charged_steps);
    events.insert(events.end(), more.begin(), more.end());
    run_delta = std::max(run_delta, plan.delta);
  }
};

/// The uses of a store and, where sweeps have split it, of its parts.
class UsesOfStore {
 public:
  explicit UsesOfStore(StoreSummary& summary) : summary_(summary) {}

  /// `above`: sweeps of which the whole store says that they trained on this part. A record of the
  /// store pays one of these bills: where the store was split it is in one of the parts.
  std::vector<Bill> bills(const fs::path& store, const fs::path& part,
                          const std::vector<SelectionUse>& above) {
    std::vector<SelectionUse> notes = above, of_parts;
    for (const SelectionUse& use : read_selections(store)) {
      check_same(use.adjacency, use.unit, use.records_per_unit);
      summary_.selections.push_back(use);
      (use.parts ? of_parts : notes).push_back(use);
    }
    Bill own;
    for (StoreRun& run : runs_on(store, notes)) {
      run.part = part;
      check(run);
      if (!run.in_a_sweep) own.add(run);
      summary_.runs.push_back(std::move(run));
    }
    for (const SelectionUse& use : notes) own.add(use);
    if (const std::string use = public_use_of(store); !use.empty())
      refuse(fmt::format("of '{}' is noted that {}", store.string(), use));
    std::vector<Bill> all = {own};
    std::vector<double> shares;
    while (!of_parts.empty()) {
      const PartsUse parts = *of_parts.front().parts;
      shares.push_back(parts.tuning_share);
      all = combined(all, bills_of_split(store, parts, of_parts));
    }
    // A plan makes parts as well, and whoever trains on them by hand notes nothing here.
    for (const PartsUse& parts : splits_beside(store))
      if (std::ranges::find(shares, parts.tuning_share) == shares.end())
        all = combined(all, bills_of_split(store, parts, of_parts));
    return all;
  }
  /// Of all of them, where there are any and they agree.
  Adjacency adjacency() const { return adjacency_.value(); }

 private:
  /// In the order of their witnesses.
  static std::vector<StoreRun> runs_on(const fs::path& store,
                                       const std::vector<SelectionUse>& notes) {
    std::vector<StoreRun> runs;
    for (const Witness& witness : read_witnesses(store)) runs.push_back(count(witness));
    for (const SelectionUse& use : notes) count_within(use, runs);
    return runs;
  }

  /// Those of a split, of which the notes are taken.
  std::vector<Bill> bills_of_split(const fs::path& store, const PartsUse& parts,
                                   std::vector<SelectionUse>& notes) {
    std::vector<SelectionUse> of_this;
    std::erase_if(notes, [&](const SelectionUse& use) {
      if (use.parts->tuning_share != parts.tuning_share) return false;
      of_this.push_back(use);
      return true;
    });
    std::vector<Bill> either;
    for (const bool is_tuning : {true, false}) {
      const auto part = find_part(store, parts, is_tuning);
      if (!part) {
        if (!of_this.empty())
          refuse(
              fmt::format("'{}', a part of this store, is gone, and with it what it was used for; "
                          "put it back beside the store",
                          (is_tuning ? parts.tuning : parts.final_run).string()));
        continue;
      }
      for (Bill& bill : bills(*part, *part, is_tuning ? of_this : std::vector<SelectionUse>()))
        if (!bill.events.empty()) either.push_back(std::move(bill));
    }
    return either;
  }

  /// Every bill with every one of a split. Of one split they are as many as its parts; of several,
  /// which overlap, all that can meet in one record.
  static std::vector<Bill> combined(const std::vector<Bill>& all, const std::vector<Bill>& parts) {
    if (parts.empty()) return all;
    std::vector<Bill> sums;
    for (const Bill& bill : all)
      for (const Bill& part : parts) {
        sums.push_back(bill);
        sums.back().add(part);
      }
    return sums;
  }

  void check(const StoreRun& run) {
    const MechanismPlan& plan = run.witness.plan;
    check_same(plan.adjacency, plan.unit, plan.records_per_unit);
    if (run.witness.insecure)
      refuse(fmt::format("run {} drew its noise from a test key", run.witness.run_id));
  }

  void check_same(Adjacency adjacency, const std::string& unit, std::int64_t records_per_unit) {
    if (!adjacency_) {
      adjacency_ = adjacency;
      summary_.unit = unit;
      records_per_unit_ = records_per_unit;
    }
    if (adjacency != *adjacency_ || unit != summary_.unit || records_per_unit != records_per_unit_)
      refuse("the runs and sweeps differ in adjacency or unit of privacy");
  }

  void refuse(const std::string& why) {
    if (summary_.why_not.empty()) summary_.why_not = why;
  }

  StoreSummary& summary_;
  std::optional<Adjacency> adjacency_;  ///< of the first use, as the others must have it
  std::int64_t records_per_unit_ = 1;
};

}  // namespace

StoreSummary summarize_store(const fs::path& store) {
  if (!fs::is_directory(store))
    throw DataError(fmt::format("'{}' is not a folder", store.string()));
  StoreSummary summary;
  UsesOfStore uses(summary);
  const std::vector<Bill> bills = uses.bills(store, {}, {});
  if (summary.runs.empty() && summary.selections.empty() && summary.why_not.empty())
    summary.why_not = "no run has used this store";
  if (!summary.why_not.empty()) return summary;
  double delta = 0;
  for (const Bill& bill : bills) delta = std::max(delta, bill.delta());
  for (const Bill& bill : bills) {
    PrivacyStatement sum = account_epsilon(Accountant::kPld, bill.events, delta, uses.adjacency());
    if (!summary.together || sum.epsilon > summary.together->epsilon)
      summary.together = std::move(sum);
  }
  return summary;
}

}  // namespace sfumato
