#include "sfumato/run/run_progress.h"

#include "sfumato/config/config.h"
#include "sfumato/io/json_file.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/run/checkpoint.h"
#include "sfumato/run/run_directory.h"

namespace sfumato {

RunProgress run_progress(const std::filesystem::path& run) {
  const RunDirectory directory = RunDirectory::look_at(run);
  RunProgress progress;
  progress.checkpoints = checkpoint_steps(directory.checkpoints());
  progress.is_private = std::filesystem::exists(directory.ledger());
  bool charged_out = false;
  if (progress.is_private) {
    const LedgerSummary ledger = verify_ledger(directory.ledger());
    progress.planned_steps = ledger.max_charged_steps;
    progress.charged_steps = ledger.charged_steps;
    charged_out = ledger.charged_steps >= ledger.max_charged_steps;
  } else {
    progress.planned_steps = load_config(directory.config(), {})->mechanism.steps();
  }
  const bool all_taken =
      !progress.checkpoints.empty() && progress.checkpoints.back() >= progress.planned_steps;
  // The card is written last: without it the release is not whole.
  progress.finished = (all_taken || (charged_out && !progress.checkpoints.empty())) &&
                      std::filesystem::exists(directory.release() / "privacy_card.json");
  return progress;
}

std::optional<MechanismPlan> plan_of_run(const std::filesystem::path& run) {
  const std::filesystem::path ledger = RunDirectory::look_at(run).ledger();
  if (!std::filesystem::exists(ledger)) return std::nullopt;
  return MechanismPlan::from_json(
      parse_json(verify_ledger(ledger).plan, "the plan in '" + ledger.string() + "'"));
}

}  // namespace sfumato
