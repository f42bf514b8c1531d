#include "sfumato/mechanism/private_stages.h"

#include <fmt/format.h>

#include <string>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/log.h"
#include "sfumato/core/sha256.h"
#include "sfumato/run/checkpoint.h"
#include "sfumato/run/run_directory.h"

namespace sfumato {
namespace {

/// The result must be the one that the stage's charges paid for: what it holds goes into the
/// weights and out with them.
void check_result(const std::string& stage, const Ledger& ledger,
                  const std::filesystem::path& file) {
  const std::string noted = ledger.result_of(stage), found = sha256_hex(read_file(file));
  if (found == noted) return;
  throw PrivacyError(fmt::format(
      "'{}' is not what the stage '{}' released: its SHA-256 is {}, and the ledger notes {}; put "
      "the released file back, or start a new run in another run.dir",
      file.string(), stage, found, noted.empty() ? "none (an interruption lost it)" : noted));
}

/// Whether the stage is done; false: not begun.
bool is_done(const StagePlan& stage, const Ledger& ledger, const std::filesystem::path& file) {
  const int64_t planned = executed_phase(stage).steps;
  const int64_t charged = ledger.charged_releases(stage.name);
  const bool there = std::filesystem::exists(file);
  if (charged == planned && there) {
    check_result(stage.name, ledger, file);
    return true;
  }
  if (charged == 0 && !there) return false;
  if (charged == 0)
    throw PrivacyError(fmt::format(
        "'{}' is there, but the ledger holds no charge for the stage '{}': it is not this run's; "
        "move it away, or start a new run in another run.dir",
        file.string(), stage.name));
  throw PrivacyError(fmt::format(
      "the ledger holds {} of {} charges for the stage '{}', but {}: an interruption lost what "
      "they paid for. Noise may have been seen, so this budget is spent and the stage cannot run "
      "again; start a new run in another run.dir{}",
      charged, planned, stage.name,
      there ? fmt::format("'{}' claims to be whole", file.string())
            : fmt::format("its result '{}' is not there", file.string()),
      there ? "" : ", or put the file back from a copy"));
}

/// The name of the file that a stage leaves in release/.
std::string result_name(const Config& config, const std::string& stage) {
  for (const StageFile& known : stage_files(config))
    if (known.stage == stage) return known.file;
  throw PrivacyError(fmt::format("the stage '{}' has no settings in this program", stage));
}

}  // namespace

void run_private_stages(const Config& config, const RecordStore& store, const RunDirectory& run,
                        MechanismSession& session, std::span<const Stage> table) {
  const bool has_begun = newest_checkpoint(run.checkpoints()).has_value();
  for (const StagePlan& planned : session.plan().stages) {
    if (planned.declared) continue;
    const Stage& stage = find_stage(table, planned.name);
    if (stage.when == StageTime::kAfterRelease) continue;
    const std::filesystem::path file = run.release() / result_name(config, planned.name);
    const StageRun what{config, store, planned, session, run.path(), has_begun};
    if (is_done(planned, session.ledger(), file)) {
      if (stage.check != nullptr) stage.check(what, file);
      continue;
    }
    make_folder(run.release());
    stage.run(what, file);
    session.record_result(planned.name, sha256_hex(read_file(file)));
    log_info(fmt::format("stage {}: released to {}", planned.name, file.string()));
  }
}

}  // namespace sfumato
