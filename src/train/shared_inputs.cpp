#include "train/shared_inputs.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "sfumato/mechanism/plan.h"
#include "sfumato/privacy/ledger.h"

namespace sfumato {

namespace {

/// The plan that the run of this configuration began with; empty if it has not begun, or if its
/// ledger cannot be read, which opening it will say.
std::optional<MechanismPlan> frozen_plan(const Config& config) {
  const std::filesystem::path ledger = std::filesystem::path(config.run.dir()) / "ledger.jsonl";
  std::error_code ignored;
  if (!std::filesystem::exists(ledger, ignored)) return std::nullopt;
  try {
    return MechanismPlan::from_json(nlohmann::json::parse(verify_ledger(ledger).plan));
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

}  // namespace

MechanismPlan plan_of_run(const Config& config, const RecordStore& store) {
  MechanismPlan plan = make_plan(config, store);
  const bool newly_planned = std::ranges::any_of(plan.stages, [](const StagePlan& stage) {
    return !stage.declared &&
           (std::holds_alternative<GaussianRelease>(stage.event) || !stage.measures.empty());
  });
  if (!newly_planned) return plan;
  const std::optional<MechanismPlan> frozen = frozen_plan(config);
  return frozen ? make_plan(config, store, &*frozen) : plan;
}

MechanismPlan make_shared_plan(const Config& config, const RecordStore& store, TrainRanks& ranks) {
  MechanismPlan plan;
  std::string text;
  ranks.on_leader([&] {
    plan = plan_of_run(config, store);
    text = plan.to_json().dump();
  });
  text = ranks.communicator()->from_leader(text);
  if (!ranks.leads()) plan = MechanismPlan::from_json(nlohmann::json::parse(text));
  ranks.require_same("the mechanism", plan.hash(), "start the same program everywhere");
  return plan;
}

}  // namespace sfumato
