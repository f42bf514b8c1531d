#include "train/settings_history.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string>

#include "sfumato/core/file.h"
#include "sfumato/core/log.h"
#include "sfumato/core/text.h"

namespace sfumato {

void note_changed_settings(const RunDirectory& run, const Config& next, std::int64_t step) {
  Config before;
  // What is wrong with it, if anything, is no reason to stop: it is about to be replaced.
  (void)before.read_yaml(read_file(run.config()), "config.yaml");
  nlohmann::ordered_json changed = nlohmann::ordered_json::object();
  std::string said;
  for (const std::string& key : next.keys()) {
    const std::string from = before.find(key)->value_yaml(), to = next.find(key)->value_yaml();
    if (from == to) continue;
    changed[key] = {{"from", from}, {"to", to}};
    said += fmt::format("{}{} {} -> {}", said.empty() ? "" : ", ", key, from, to);
  }
  if (changed.empty()) return;
  const nlohmann::ordered_json line = {{"time", utc_now()}, {"step", step}, {"changed", changed}};
  AppendFile(run.settings_history())
      .append(line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
  log_info(fmt::format("settings that differ from those before step {}: {} (kept in '{}')",
                       step + 1, said, run.settings_history().string()));
}

}  // namespace sfumato
