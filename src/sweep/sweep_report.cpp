#include "sfumato/sweep/sweep_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/text.h"
#include "sfumato/report/tensorboard.h"
#include "sfumato/run/corpus_places.h"
#include "sfumato/sweep/planned_cost.h"
#include "sweep/report_rows.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

/// Losses of the steps, thinned: a page need not hold thousands of points.
std::vector<CurvePoint> read_curve(const fs::path& metrics) {
  constexpr std::size_t kPoints = 200;
  std::vector<CurvePoint> all;
  if (!fs::exists(metrics)) return all;
  const std::string text = read_file(metrics);
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const auto line = nlohmann::json::parse(text.substr(begin, end - begin), nullptr, false);
    if (line.is_object() && line.value("step", nlohmann::json()).is_number() &&
        line.value("loss", nlohmann::json()).is_number())
      all.push_back({line["step"].get<double>(), line["loss"].get<double>()});
    begin = end + 1;
  }
  if (all.size() <= kPoints) return all;
  std::vector<CurvePoint> thinned;
  for (std::size_t i = 0; i < kPoints; ++i)
    thinned.push_back(all[i * (all.size() - 1) / (kPoints - 1)]);
  return thinned;
}

std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

std::string number_text(const std::optional<double>& value) {
  return value ? fmt::format("{}", *value) : std::string{};
}

void write_tensorboard(const SweepReport& report, const fs::path& folder) {
  for (const ReportRow& row : report.rows) {
    if (row.state.stage != RunState::Stage::kDone) continue;
    TensorBoardWriter writer(folder / row.run->name());
    std::vector<std::pair<std::string, std::string>> settings;
    for (const std::string& key : report.keys)
      settings.emplace_back(key, SweepReport::value(row, key));
    writer.add_hparams(settings);
    for (const CurvePoint& point : row.curve)
      writer.add_scalar("loss", static_cast<std::int64_t>(point.step), point.loss);
    if (row.state.score) writer.add_scalar("score", row.state.charged_steps, *row.state.score);
    if (row.state.epsilon)
      writer.add_scalar("epsilon", row.state.charged_steps, *row.state.epsilon);
    writer.flush();
  }
}

}  // namespace

std::string SweepReport::value(const ReportRow& row, const std::string& key) {
  for (const Assignment& assignment : row.run->assignments)
    if (assignment.key == key) return assignment.value;
  return {};
}

SweepReport read_report(const SweepPlan& plan, std::chrono::seconds stale_after) {
  SweepReport report{&plan, {}, {}, false};
  const bool all_may_be_seen = plan.purpose() == SweepPurpose::kPublicTuning;
  for (const SweepRun& run : plan.runs) {
    for (const Assignment& assignment : run.assignments)
      if (std::ranges::find(report.keys, assignment.key) == report.keys.end())
        report.keys.push_back(assignment.key);
    ReportRow row{&run, state_of(plan, run, stale_after), {}, {}};
    const fs::path folder = places_of(plan, run).run;
    if (all_may_be_seen) row.curve = read_curve(folder / "private" / "metrics.jsonl");
    if (const fs::path sheet = folder / "corpus" / kContactSheet;
        row.state.stage == RunState::Stage::kDone && fs::exists(sheet))
      row.contact_sheet_png = read_file(sheet);
    report.has_scores = report.has_scores || row.state.score.has_value();
    report.rows.push_back(std::move(row));
  }
  return report;
}

std::string report_csv(const SweepReport& report) {
  std::string text = "run,state";
  for (const std::string& key : report.keys) text += "," + csv_field(key);
  text += ",charged_steps,epsilon,delta,score,runs_together,epsilon_together,delta_together\r\n";
  std::string together = ",,,";
  if (const auto total = sweep_total(*report.plan))
    together = fmt::format(",{},{},{}", total->runs, total->epsilon, total->delta);
  for (const ReportRow& row : report.rows) {
    text += row.run->name() + "," + to_string(row.state.stage);
    for (const std::string& key : report.keys)
      text += "," + csv_field(SweepReport::value(row, key));
    text +=
        fmt::format(",{},{},{},{}{}\r\n", row.state.charged_steps, number_text(row.state.epsilon),
                    row.state.epsilon ? fmt::format("{}", row.state.delta) : "",
                    number_text(row.state.score), together);
  }
  return text;
}

void write_sweep_report(const SweepPlan& plan, const fs::path& folder,
                        std::chrono::seconds stale_after) {
  if (plan.purpose() == SweepPurpose::kPrivateSelection)
    throw PrivacyError(fmt::format(
        "there is no report of a private selection: its epsilon covers the best run alone, and "
        "anything said of the others, their number too, would spend more. What may be seen is '{}'",
        plan.release().string()));
  const SweepReport report = read_report(plan, stale_after);
  make_folder(folder);
  write_file_atomic(folder / "runs.csv", report_csv(report));
  write_file_atomic(folder / "report.html", sweep_report_page(report));
  std::error_code ignored;
  fs::remove_all(folder / "tensorboard", ignored);
  write_tensorboard(report, folder / "tensorboard");
}

}  // namespace sfumato
