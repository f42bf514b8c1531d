#include "train/shared_inputs.h"

#include <nlohmann/json.hpp>
#include <string>

#include "sfumato/mechanism/plan.h"

namespace sfumato {

MechanismPlan make_shared_plan(const Config& config, const RecordStore& store, TrainRanks& ranks) {
  MechanismPlan plan;
  std::string text;
  ranks.on_leader([&] {
    plan = make_plan(config, store);
    text = plan.to_json().dump();
  });
  text = ranks.communicator()->from_leader(text);
  if (!ranks.leads()) plan = MechanismPlan::from_json(nlohmann::json::parse(text));
  ranks.require_same("the mechanism", plan.hash(), "start the same program everywhere");
  return plan;
}

}  // namespace sfumato
