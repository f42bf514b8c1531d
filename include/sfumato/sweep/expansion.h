#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "sfumato/config/config.h"
#include "sfumato/sweep/sweep_file.h"

namespace sfumato {

/// What one run of a sweep sets, its folder apart.
struct SweepRun {
  std::int64_t index = 0;
  std::vector<Assignment> assignments;  ///< of what varies
  std::string settings;                 ///< base and assignments, as YAML
  std::string hash;                     ///< SHA-256 of `settings`
  /// "003-1a2b3c4d": index and the beginning of the hash, which name the run's folder.
  std::string name() const;
  /// Of `settings`.
  std::unique_ptr<Config> config() const;
};

/// A run with these assignments on top of `base`.
SweepRun sweep_run(std::int64_t index, const SettingValues& base,
                   std::vector<Assignment> assignments);

/// "optimizer.learning_rate=0.001 diffusion.draws=4"; "" without assignments.
std::string to_text(const std::vector<Assignment>& assignments);

/// All runs in order: the first axis moves slowest, repetitions fastest. UsageError lists runs
/// whose settings contradict each other, and says where nothing is left or too much.
std::vector<SweepRun> expand(const SweepFile& file);
inline constexpr std::int64_t kMostRuns = 10'000;

}  // namespace sfumato
