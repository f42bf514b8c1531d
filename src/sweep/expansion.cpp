#include "sfumato/sweep/expansion.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "sfumato/core/error.h"
#include "sfumato/core/sha256.h"
#include "sfumato/core/text.h"

namespace sfumato {
namespace {

constexpr std::size_t kMostMistakesShown = 20;

bool is_excluded(const SweepFile& file, const std::vector<Assignment>& assignments) {
  return std::ranges::any_of(file.exclude, [&](const std::vector<Assignment>& left_out) {
    return std::ranges::all_of(left_out, [&](const Assignment& part) {
      return std::ranges::find(assignments, part) != assignments.end();
    });
  });
}

/// More would be a mistake in the file, and takes memory before anybody sees it.
void check_size(const SweepFile& file) {
  std::int64_t runs = file.settings->sweep.repeat();
  for (const SweepAxis& axis : file.axes) {
    runs *= std::ssize(axis.points);
    if (runs > kMostRuns)
      throw UsageError(fmt::format("{}: more than {} runs; vary fewer settings at a time",
                                   file.path.string(), kMostRuns));
  }
}

std::vector<std::vector<Assignment>> combinations(const SweepFile& file) {
  std::vector<std::vector<Assignment>> all{{}};
  for (const SweepAxis& axis : file.axes) {
    std::vector<std::vector<Assignment>> longer;
    for (const auto& left : all)
      for (const auto& point : axis.points) {
        longer.push_back(left);
        longer.back().insert(longer.back().end(), point.begin(), point.end());
      }
    all = std::move(longer);
  }
  std::erase_if(all, [&](const auto& assignments) { return is_excluded(file, assignments); });
  return all;
}

std::int64_t base_seed(const SweepFile& file) {
  const auto seed = file.base.find("run.seed");
  return seed == file.base.end() ? 0 : parse_int64(seed->second).value();
}

/// What of its settings would end the run before it begins.
void check_run(const SweepRun& run, std::vector<std::string>& mistakes) {
  try {
    validate_for_training(*parse_config(run.settings, "its settings"));
  } catch (const UsageError& error) {
    mistakes.push_back(
        fmt::format("run {} ({}): {}", run.name(), to_text(run.assignments), error.what()));
  }
}

}  // namespace

std::string SweepRun::name() const { return fmt::format("{:03}-{}", index, hash.substr(0, 8)); }

std::unique_ptr<Config> SweepRun::config() const { return parse_config(settings, "run " + name()); }

SweepRun sweep_run(std::int64_t index, const SettingValues& base,
                   std::vector<Assignment> assignments) {
  SettingValues values = base;
  values.erase("run.dir");
  for (const Assignment& assignment : assignments) values[assignment.key] = assignment.value;
  SweepRun run{index, std::move(assignments), settings_yaml(Config(), values), {}};
  run.hash = sha256_hex(run.settings);
  return run;
}

std::string to_text(const std::vector<Assignment>& assignments) {
  std::string text;
  for (const auto& [key, value] : assignments)
    text += fmt::format("{}{}={}", text.empty() ? "" : " ", key, value);
  return text;
}

std::vector<SweepRun> expand(const SweepFile& file) {
  check_size(file);
  std::vector<SweepRun> runs;
  std::vector<std::string> mistakes;
  const std::int64_t repeat = file.settings->sweep.repeat();
  for (const auto& combination : combinations(file))
    for (std::int64_t i = 0; i < repeat; ++i) {
      std::vector<Assignment> assignments = combination;
      if (repeat > 1) assignments.push_back({"run.seed", fmt::format("{}", base_seed(file) + i)});
      runs.push_back(sweep_run(std::ssize(runs), file.base, std::move(assignments)));
      if (mistakes.size() < kMostMistakesShown) check_run(runs.back(), mistakes);
    }
  if (runs.empty())
    mistakes.push_back(fmt::format("{}: sweep.exclude leaves no run", file.path.string()));
  if (!mistakes.empty()) throw UsageError(fmt::format("{}", fmt::join(mistakes, "\n")));
  return runs;
}

}  // namespace sfumato
