#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>

#include "sfumato/config/config.h"
#include "sfumato/dist/communicator.h"
#include "sfumato/privacy/secure_random.h"

namespace sfumato {

/// What a finished (or interrupted) training run amounts to.
struct TrainResult {
  int64_t steps = 0;    ///< optimizer steps in the released weights
  int64_t charged = 0;  ///< noisy releases charged to the budget, steps lost in a crash included
  double epsilon = 0;   ///< spent; infinite if not private
  std::filesystem::path release;
};

struct TrainOptions {
  /// The processes that train together, each of which calls train() with the same configuration;
  /// performance.*, run.dir and data.store are each one's own.
  std::shared_ptr<Communicator> ranks = single_process();
  /// Called once. Others than this are for tests: their noise protects nobody, and the card is
  /// VOID.
  std::function<SecureKey()> noise_key = SecureKey::generate;
};

/// Trains the network of `config` on its record store and writes the run directory. With `resume`
/// it goes on from the newest checkpoint: PrivacyError if the mechanism differs from the ledger's
/// (and how). SIGTERM, SIGINT and SIGUSR1 end it at a step boundary with a checkpoint: Interrupted.
/// First the configuration is completed by the files of model.init (adopt_pretrained_settings).
///
/// Where several ranks train, rank 0 decides `resume`, holds the ledger and the run directory,
/// which others never open, and alone returns more than the number of steps. An error of one ends
/// all: with a LostRank those that do not know why. A run goes on with any number of ranks.
TrainResult train(Config& config, bool resume, const TrainOptions& options = {});

}  // namespace sfumato
