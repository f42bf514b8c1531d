#include "sfumato/mechanism/private_stages.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/log.h"
#include "sfumato/core/sha256.h"
#include "sfumato/io/json_file.h"
#include "sfumato/mechanism/private_statistics.h"
#include "sfumato/mechanism/stage_budget.h"
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
  const int64_t planned = std::get<Phase>(stage.event).steps;
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

}  // namespace

void run_private_stages(const Config& config, const RecordStore& store, const RunDirectory& run,
                        MechanismSession& session) {
  for (const StagePlan& stage : session.plan().stages) {
    if (stage.declared) continue;
    const bool histogram = stage.name == "label_histogram";
    if (!histogram && stage.name != "central_images")
      throw PrivacyError(fmt::format("this program has no stage '{}'", stage.name));
    const std::filesystem::path file =
        histogram ? label_histogram_file(run) : central_images_file(run);
    if (is_done(stage, session.ledger(), file)) continue;
    make_folder(run.release());
    if (histogram)
      write_json_atomic(file, to_json(release_label_histogram(store, stage, session)));
    else
      release_central_images(store, stage, central_images_divisor(config), session).save(file);
    session.record_result(stage.name, sha256_hex(read_file(file)));
    log_info(fmt::format("stage {}: released to {}", stage.name, file.string()));
  }
}

}  // namespace sfumato
