#pragma once
#include <cstdint>
#include <filesystem>

#include "sfumato/config/config.h"

namespace sfumato {

/// What a finished (or interrupted) training run amounts to.
struct TrainResult {
  int64_t steps = 0;    ///< optimizer steps in the released weights
  int64_t charged = 0;  ///< noisy releases charged to the budget, steps lost in a crash included
  double epsilon = 0;   ///< spent; infinite if not private
  std::filesystem::path release;
};

/// Trains the network of `config` on its record store and writes the run directory. With `resume`
/// it goes on from the newest checkpoint: PrivacyError if the mechanism differs from the ledger's
/// (and how). SIGTERM, SIGINT and SIGUSR1 end it at a step boundary with a checkpoint: Interrupted.
/// First the configuration is completed by the files of model.init (adopt_pretrained_settings).
TrainResult train(Config& config, bool resume);

}  // namespace sfumato
