#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "sfumato/report/privacy_card.h"
#include "sfumato/sweep/sweep_runner.h"

namespace sfumato {

/// One of the commands that make a run, in their order.
struct RunCommand {
  std::string what;  ///< "training", for messages
  std::vector<std::string> words;
  std::filesystem::path output;  ///< where its standard output is wanted; else empty
  bool is_ours = true;           ///< it knows SIGUSR1
};

/// Training, then what the plan asks for of each run. Writes the configuration that training takes;
/// `total`: what the run's card says of the sweep.
std::vector<RunCommand> commands_of(const SweepPlan& plan, const SweepRun& run,
                                    const std::optional<SweepTotal>& total,
                                    const RunnerOptions& options);

/// The number that the command of the score printed; nothing without such a command. DataError
/// where it is no number.
std::optional<double> score_of(const std::vector<RunCommand>& commands);

/// The last line of a text file that says something; "" if none does.
std::string last_line(const std::filesystem::path& path);

}  // namespace sfumato
