#include "cli/lab/audit_ranks.h"

#include <thread>

#include "sfumato/core/log.h"
#include "sfumato/device/threads.h"
#include "sfumato/dist/join_ranks.h"
#include "sfumato/generate/families.h"
#include "sfumato/train/setup.h"

namespace sfumato::cli {

void with_ranks(const std::function<void(const std::shared_ptr<Communicator>&)>& audit) {
  const std::shared_ptr<Communicator> ranks = join_ranks();
  show_gpu_of_rank(*ranks);
  if (!ranks->leads()) set_quiet(true);
  audit(ranks);
  ranks->leave();
}

void set_threads_of_rank(int64_t setting, const Communicator& ranks) {
  if (!ranks.alone())
    setting = threads_of_rank(setting, std::thread::hardware_concurrency(), ranks);
  set_threads(setting);
}

std::unique_ptr<Config> load_for_audit(const ConfigOptions& options, const Communicator& ranks) {
  auto config = load(options);
  adopt_pretrained_settings(*config);
  validate(*config);
  set_threads_of_rank(config->performance.threads(), ranks);
  return config;
}

}  // namespace sfumato::cli
