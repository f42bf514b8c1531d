#include "sweep/run_commands.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <thread>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/printable.h"
#include "sfumato/core/text.h"
#include "sfumato/run/selection_mark.h"
#include "sfumato/run/sweep_binding.h"
#include "sfumato/sweep/sweep_state.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSpaces = " \t\r\n";

/// The run's settings, its folder and its place in the plan. Of a selection's run there are no
/// previews: nobody looks at one run of many.
std::string training_config(const SweepPlan& plan, const SweepRun& run,
                            const std::optional<SweepTotal>& total, const fs::path& folder) {
  const auto config = run.config();
  config->run.dir.set(folder.string());
  config->run.sweep.set(to_text(SweepBinding{binding_of(plan, run), total}));
  if (plan.purpose() == SweepPurpose::kPrivateSelection) config->preview.images.set(0);
  return settings_yaml(*config, given_settings(*config));
}

/// Several at a time share the cores, where the configuration leaves that open.
void share_threads(const SweepRun& run, std::int64_t jobs, std::vector<std::string>& words) {
  const auto config = run.config();
  const std::int64_t cores = std::max<std::int64_t>(std::thread::hardware_concurrency(), 1);
  if (jobs > 1 && config->performance.threads.is_default())
    words.push_back(fmt::format("performance.threads={}", std::max<std::int64_t>(cores / jobs, 1)));
}

std::string filled(std::string word, const std::string& name, const fs::path& value) {
  for (std::size_t at = 0; (at = word.find(name, at)) != std::string::npos;
       at += value.string().size())
    word.replace(at, name.size(), value.string());
  return word;
}

std::vector<std::string> launched(const RunnerOptions& options,
                                  const std::vector<std::string>& words) {
  std::vector<std::string> command = options.launch;
  command.push_back(options.program.string());
  command.insert(command.end(), words.begin(), words.end());
  return command;
}

}  // namespace

std::vector<RunCommand> commands_of(const SweepPlan& plan, const SweepRun& run,
                                    const std::optional<SweepTotal>& total,
                                    const RunnerOptions& options) {
  const RunPlaces places = places_of(plan, run);
  write_file_atomic(places.config, training_config(plan, run, total, places.run), 0600);
  std::vector<std::string> train{"train", "--resume-or-start", "--config", places.config.string()};
  share_threads(run, options.jobs, train);
  std::vector<RunCommand> commands{{"training", launched(options, train), {}, true}};
  // Of a selection's run nothing leaves its private/.
  const bool chooses = plan.purpose() == SweepPurpose::kPrivateSelection;
  const fs::path release = chooses ? selection_candidate(places.run) : places.run / "release";
  const fs::path corpus = places.run / (chooses ? "private/corpus" : "corpus");
  if (const auto samples = plan.common.at("samples").get<std::int64_t>(); samples > 0) {
    std::vector<std::string> sample{"sample",  (chooses ? release : places.run).string(),
                                    "--out",   corpus.string(),
                                    "--count", std::to_string(samples)};
    if (chooses) sample.insert(sample.end(), {"--config", places.config.string()});
    share_threads(run, options.jobs, sample);
    commands.push_back({"sampling", launched(options, sample), {}, true});
  }
  const auto score = plan.common.at("score").get<std::vector<std::string>>();
  if (score.empty()) return commands;
  RunCommand command{"the score's command", {}, places.log.string() + ".score", false};
  for (const std::string& word : score)
    command.words.push_back(filled(filled(filled(word, "{run}", places.run), "{release}", release),
                                   "{corpus}", corpus));
  commands.push_back(command);
  return commands;
}

std::optional<double> score_of(const std::vector<RunCommand>& commands) {
  const fs::path& output = commands.back().output;
  if (output.empty()) return std::nullopt;
  const std::string line = last_line(output);
  const std::size_t at = line.find_last_of(kSpaces);
  const auto score = parse_double(at == std::string::npos ? line : line.substr(at + 1));
  if (!score || !std::isfinite(*score))
    throw DataError(fmt::format("the score's command printed no number as its last word, but '{}'",
                                printable(line)));
  return score;
}

std::string last_line(const fs::path& path) {
  std::string text;
  try {
    text = read_file(path);
  } catch (const DataError&) {
    return {};
  }
  const std::size_t end = text.find_last_not_of(kSpaces);
  if (end == std::string::npos) return {};
  const std::size_t begin = text.rfind('\n', end);
  return text.substr(begin == std::string::npos ? 0 : begin + 1,
                     end - (begin == std::string::npos ? 0 : begin + 1) + 1);
}

}  // namespace sfumato
