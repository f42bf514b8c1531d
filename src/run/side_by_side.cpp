#include "sfumato/run/side_by_side.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "run/configuration_comparison.h"
#include "sfumato/config/config.h"
#include "sfumato/core/bound_text.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/printable.h"
#include "sfumato/core/text.h"
#include "sfumato/report/base64.h"
#include "sfumato/report/html_report.h"
#include "sfumato/report/privacy_card.h"
#include "sfumato/run/run_directory.h"
#include "sfumato/run/run_progress.h"
#include "sfumato/run/run_verification.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// A choice among them looks at all: what that costs is said wherever they are shown together.
constexpr const char* kChoice =
    "A choice among runs on the same images is covered by ε only where mechanism.candidates "
    "counted "
    "them all, and never where numbers under private/ decide.";

std::string state_of(const RunProgress& progress) {
  if (progress.finished) return "finished";
  if (progress.checkpoints.empty()) return "no checkpoint yet";
  return fmt::format("step {} of {}", progress.checkpoints.back(), progress.planned_steps);
}

/// What the ledger proves; of a release, whether all of it follows.
void find_privacy(const fs::path& folder, bool is_private, ShownRun& shown) {
  if (!is_private) {
    shown.privacy = "NOT PRIVATE";
    return;
  }
  RunVerificationOptions options;
  options.run = folder;
  options.ledger_only = !fs::exists(folder / "release" / "privacy_card.json");
  options.release_only = true;
  const RunVerification run = verify_run(options);
  const std::string verdict = run.verdict();
  shown.privacy = verdict == "sound" ? "private" : verdict;
  if (!run.plan) return;
  shown.delta = run.plan->delta;
  if (shown.privacy != "private" || !run.statement) return;
  shown.epsilon = run.statement->epsilon;
  shown.epsilon_planned = run.epsilon_planned;
}

void find_picture(const fs::path& folder, ShownRun& shown) {
  const fs::path previews = RunDirectory::look_at(folder).previews();
  if (!fs::is_directory(previews)) return;
  for (const auto& entry : fs::directory_iterator(previews)) {
    const std::string name = entry.path().stem().string();
    if (entry.path().extension() != ".png" || !name.starts_with("step_")) continue;
    const auto step = parse_int64(name.substr(5));
    if (!step || *step < shown.picture_step) continue;
    shown.picture = entry.path();
    shown.picture_step = *step;
  }
}

/// Numbers of the last whole line of private/metrics.jsonl.
std::map<std::string, double> last_metrics(const fs::path& folder) {
  const fs::path file = folder / "private" / "metrics.jsonl";
  if (!fs::exists(file)) return {};
  std::string text = read_file(file);
  text.erase(text.find_last_of('\n') == std::string::npos ? 0 : text.find_last_of('\n'));
  const Json line = Json::parse(text.substr(text.find_last_of('\n') + 1), nullptr, false);
  std::map<std::string, double> metrics;
  if (line.is_object())
    for (const auto& [name, value] : line.items())
      if (value.is_number()) metrics[name] = value.get<double>();
  return metrics;
}

std::string epsilon_cell(const ShownRun& run) {
  return run.epsilon
             ? fmt::format("{} of {} planned, delta {}", epsilon_text(*run.epsilon),
                           epsilon_text(run.epsilon_planned.value_or(*run.epsilon)), run.delta)
             : std::string("no claim");
}

/// Every fact with its value in each run.
std::vector<std::pair<std::string, std::vector<std::string>>> rows_of(const SideBySide& all) {
  std::vector<std::pair<std::string, std::vector<std::string>>> rows = {
      {"run", {}}, {"state", {}}, {"privacy", {}}, {"epsilon", {}}, {"charged steps", {}}};
  for (const ShownRun& run : all.runs) {
    rows[0].second.push_back(printable(run.folder.string()));
    rows[1].second.push_back(run.state);
    rows[2].second.push_back(run.privacy);
    rows[3].second.push_back(epsilon_cell(run));
    rows[4].second.push_back(fmt::format("{}", run.charged_steps));
  }
  for (const auto& [key, values] : all.settings) {
    rows.emplace_back(key, std::vector<std::string>());
    for (const std::string& value : values) rows.back().second.push_back(printable(value));
  }
  std::map<std::string, std::vector<std::string>> metrics;
  for (std::size_t i = 0; i < all.runs.size(); ++i)
    for (const auto& [name, value] : all.runs[i].metrics) {
      auto& cells = metrics.try_emplace(name, all.runs.size()).first->second;
      cells[i] = fmt::format("{:.5g}", value);
    }
  for (auto& [name, values] : metrics) rows.emplace_back("private: " + name, std::move(values));
  return rows;
}

}  // namespace

SideBySide side_by_side(const std::vector<fs::path>& folders, bool with_private) {
  SideBySide all;
  all.with_private = with_private;
  std::vector<std::unique_ptr<Config>> configs;
  for (const fs::path& folder : folders) {
    const RunProgress progress = run_progress(folder);
    configs.push_back(load_config(RunDirectory::look_at(folder).config(), {}));
    if (!with_private && planned_selection(*configs.back()))
      throw PrivacyError(fmt::format(
          "'{}' is a run of a private selection, of which the winner's release alone leaves; see "
          "sfumato sweep report, or --private for your own eyes",
          folder.string()));
    ShownRun shown;
    shown.folder = folder;
    shown.state = state_of(progress);
    shown.charged_steps = progress.charged_steps;
    find_privacy(folder, progress.is_private, shown);
    // Pictures of a network that no noise protects show its private images.
    if (shown.privacy == "private" || with_private) find_picture(folder, shown);
    if (with_private) shown.metrics = last_metrics(folder);
    all.runs.push_back(std::move(shown));
  }
  for (const std::string& key : configs.front()->keys()) {
    std::vector<std::string> values;
    for (const auto& config : configs) values.push_back(config->find(key)->value_yaml());
    if (key != "run.dir" && std::ranges::count(values, values.front()) != std::ssize(values))
      all.settings.emplace_back(key, std::move(values));
  }
  return all;
}

std::string text_of(const SideBySide& all) {
  const auto rows = rows_of(all);
  std::size_t name_width = 0;
  std::vector<std::size_t> widths(all.runs.size());
  for (const auto& [name, values] : rows) {
    name_width = std::max(name_width, name.size());
    for (std::size_t i = 0; i < values.size(); ++i)
      widths[i] = std::max(widths[i], values[i].size());
  }
  std::string text;
  for (const auto& [name, values] : rows) {
    std::string line = fmt::format("{:<{}}", name, name_width);
    for (std::size_t i = 0; i < values.size(); ++i)
      line += fmt::format("  {:<{}}", values[i], widths[i]);
    text += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  if (all.with_private) text += "PRIVATE: rows called so are computed without noise\n";
  return text + (all.runs.size() > 1 ? std::string(kChoice) + "\n" : "");
}

Json to_json(const SideBySide& all) {
  Json runs = Json::array();
  for (const ShownRun& run : all.runs) {
    Json json = {
        {"run", run.folder.string()},
        {"state", run.state},
        {"privacy", run.privacy},
        {"charged_steps", run.charged_steps},
        {"epsilon", run.epsilon && std::isfinite(*run.epsilon) ? Json(*run.epsilon) : Json()},
        {"epsilon_planned", run.epsilon_planned && std::isfinite(*run.epsilon_planned)
                                ? Json(*run.epsilon_planned)
                                : Json()},
        {"delta", run.epsilon ? Json(run.delta) : Json()},
        {"preview", run.picture.empty() ? Json() : Json(run.picture.string())}};
    if (all.with_private) json["private_metrics"] = run.metrics;
    runs.push_back(std::move(json));
  }
  Json settings = Json::object();
  for (const auto& [key, values] : all.settings) settings[key] = values;
  return {{"runs", runs}, {"settings", settings}};
}

std::string page_of(const SideBySide& all) {
  std::string body;
  if (all.with_private)
    body +=
        "<div class=\"banner alarm\" role=\"alert\"><strong>PRIVATE</strong><p>This page holds "
        "numbers or pictures that no noise protects: it may not leave.</p></div>\n";
  body += "<section>\n<table>\n<tbody>\n";
  for (const auto& [name, values] : rows_of(all)) {
    body += fmt::format("<tr><th scope=\"row\">{}</th>", html_escape(name));
    for (const std::string& value : values) body += fmt::format("<td>{}</td>", html_escape(value));
    body += "</tr>\n";
  }
  body += fmt::format("</tbody>\n</table>\n<p>{}</p>\n</section>\n", html_escape(kChoice));
  for (const ShownRun& run : all.runs) {
    body += fmt::format("<section>\n<h2>{}</h2>\n", html_escape(printable(run.folder.string())));
    if (run.picture.empty()) {
      body += "<p>No preview is shown.</p>\n</section>\n";
      continue;
    }
    const std::string png = read_file(run.picture);
    const auto* bytes = reinterpret_cast<const std::byte*>(png.data());
    body += fmt::format(
        "<figure><img alt=\"pictures after step {0}\" src=\"data:image/png;base64,{1}\">"
        "<figcaption>after step {0}; {2}</figcaption></figure>\n</section>\n",
        run.picture_step, base64(std::vector<std::byte>(bytes, bytes + png.size())),
        html_escape(run.privacy));
  }
  return html_page("sfumato: runs side by side", body);
}

}  // namespace sfumato
