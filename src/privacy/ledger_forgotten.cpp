#include <fmt/format.h>

#include "ledger_line.h"
#include "sfumato/core/error.h"

namespace sfumato {

void Ledger::charge_forgotten(const ForgottenCharges& forgotten) {
  if (in_session_) throw PrivacyError("what was forgotten is charged before a session, not in one");
  const auto limits = stage_limits(nlohmann::ordered_json::parse(state_->plan));
  const auto refuse = [&](const std::string& what) {
    throw PrivacyError(fmt::format(
        "the ledger '{}' is an older copy, and with what it has forgotten {}: copies of "
        "this run went on separately. Start a new run, whose budget comes on top of "
        "what all of them have spent",
        state_->path.string(), what));
  };
  const std::int64_t steps = state_->charged_steps + forgotten.steps;
  if (steps > state_->max_charged_steps)
    refuse(fmt::format("{} steps are charged, of {} planned", steps, state_->max_charged_steps));
  nlohmann::ordered_json stages = nlohmann::ordered_json::object();
  for (const auto& [name, more] : forgotten.stages) {
    const auto limit = limits.find(name);
    const std::int64_t charged = charged_releases(name) + more;
    if (limit == limits.end() || charged > limit->second)
      refuse(fmt::format("{} releases of the stage '{}' are charged, of {} planned", charged, name,
                         limit == limits.end() ? 0 : limit->second));
    stages[name] = charged;
  }
  append({{"kind", "forgotten"},
          {"witness", forgotten.witness_head},
          {"charged", steps},
          {"stages", stages}});
  state_->charged_steps = steps;
  state_->forgotten_steps += forgotten.steps;
  state_->settled_heads.push_back(forgotten.witness_head);
  for (const auto& [name, charged] : stages.items())
    state_->stage_charges[name] = charged.get<std::int64_t>();
}

}  // namespace sfumato
