#include "sfumato/audit/membership.h"

#include <fmt/format.h>

#include "run/checkpoint_binding.h"
#include "sfumato/config/config.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/generate/families.h"
#include "sfumato/models/tensor_file.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/run/checkpoint.h"

namespace sfumato {
namespace {

/// DataError for a checkpoint that the run's ledger does not note as its own. Says what is not
/// known.
void check_checkpoint(const Checkpoint& checkpoint, const std::filesystem::path& place,
                      const std::filesystem::path& file) {
  if (!std::filesystem::exists(file)) {
    log_warning(fmt::format(
        "'{}' is attacked as it is: there is no '{}' that would say whether it is this run's, as "
        "where a run is not private",
        place.string(), file.string()));
    return;
  }
  const LedgerSummary ledger = verify_ledger(file);
  std::int64_t line = 0;
  const std::string defect =
      ledger.problems.empty()
          ? checkpoint_defect(ledger, checkpoint, checkpoint.step, line)
          : fmt::format("nothing is known of it, for its ledger is damaged ({})",
                        ledger.problems.front());
  if (!defect.empty())
    throw DataError(fmt::format(
        "'{}': {}; an attack on it would say nothing of this run: put back the ledger and the "
        "checkpoints of one run and time",
        place.string(), defect));
  if (const std::int64_t last = last_checkpoint_step(ledger); last != checkpoint.step)
    log_warning(fmt::format(
        "'{}' is not what the run last saved: its ledger notes a checkpoint of step {}, which is "
        "not here",
        place.string(), last));
}

}  // namespace

std::unique_ptr<Generator> trained_generator(const std::filesystem::path& run,
                                             const Config& config) {
  const auto newest = newest_checkpoint(run / "private" / "checkpoints");
  if (!newest) return nullptr;
  const Checkpoint checkpoint = read_checkpoint(*newest);
  check_checkpoint(checkpoint, *newest, run / "ledger.jsonl");
  NamedGroups groups;
  for (const TensorGroup& group : checkpoint.groups)
    groups.emplace_back(group.name, to_tensors(group));
  std::unique_ptr<Generator> generator = make_generator(config, open_placement(config.performance));
  generator->load_state(groups);
  return generator;
}

std::unique_ptr<MembershipScorer> membership_scorer(Generator& generator, const Config& config,
                                                    const MembershipOptions& options) {
  if (const std::string obstacle = generator.attack_obstacle(); !obstacle.empty())
    throw UsageError(fmt::format(
        "{}; audit conformance and audit replication take generators of every family", obstacle));
  return generator.membership_scorer(config, options);
}

}  // namespace sfumato
