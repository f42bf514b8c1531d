#include <fmt/format.h>

#include <cstring>

#include "sfumato/core/bound_text.h"
#include "sfumato/core/text.h"
#include "sfumato/report/base64.h"
#include "sfumato/report/html_report.h"
#include "sfumato/sweep/planned_cost.h"
#include "sweep/report_rows.h"

namespace sfumato {
namespace {

// Rows by the column that is clicked: numbers by size, others by their text; once more turns it.
constexpr std::string_view kSortScript = R"(
document.querySelectorAll("table.runs th").forEach((head, column) => {
  head.addEventListener("click", () => {
    const body = head.closest("table").tBodies[0];
    const falling = head.getAttribute("aria-sort") === "ascending";
    head.parentNode.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const key = row => row.cells[column].textContent;
    const compare = (a, b) => {
      const x = Number(key(a)), y = Number(key(b));
      const order = key(a) !== "" && key(b) !== "" && !isNaN(x) && !isNaN(y)
          ? x - y : key(a).localeCompare(key(b));
      return falling ? -order : order;
    };
    [...body.rows].sort(compare).forEach(row => body.append(row));
  });
});
)";

std::string row_html(const SweepReport& report, const ReportRow& row) {
  std::string cells =
      fmt::format("<td>{}</td><td>{}</td>", row.run->name(), to_string(row.state.stage));
  for (const std::string& key : report.keys)
    cells += fmt::format("<td>{}</td>", html_escape(SweepReport::value(row, key)));
  cells += fmt::format("<td>{}</td><td>{}</td><td>{}</td>", row.state.charged_steps,
                       row.state.epsilon ? epsilon_text(*row.state.epsilon) : "",
                       row.state.score ? fmt::format("{:.6g}", *row.state.score) : "");
  return "<tr>" + cells + "</tr>\n";
}

std::string table_html(const SweepReport& report) {
  std::string heads = "<th>run</th><th>state</th>";
  for (const std::string& key : report.keys) heads += fmt::format("<th>{}</th>", html_escape(key));
  heads += "<th>charged steps</th><th>epsilon</th><th>score</th>";
  std::string rows;
  for (const ReportRow& row : report.rows) rows += row_html(report, row);
  return fmt::format(
      "<style>main {{ max-width: 76rem; }} .wide {{ overflow-x: auto; }} table.runs th {{ width: "
      "auto; cursor: pointer; }} table.runs td {{ overflow-wrap: normal; }} .sheets {{ display: "
      "grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(16rem, 1fr)); }}</style>\n"
      "<section>\n<h2>Runs</h2>\n<p>Click on a heading to sort.</p>\n<div class=\"wide\"><table "
      "class=\"runs\">\n<thead><tr>{}</tr></thead>\n<tbody>\n{}</tbody>\n</table></div>\n"
      "</section>\n",
      heads, rows);
}

std::string sheets_html(const SweepReport& report) {
  std::string figures;
  for (const ReportRow& row : report.rows) {
    if (row.contact_sheet_png.empty()) continue;
    const auto* bytes = reinterpret_cast<const std::byte*>(row.contact_sheet_png.data());
    const std::vector<std::byte> png(bytes, bytes + row.contact_sheet_png.size());
    const std::string caption = html_escape(row.run->name() + " " + to_text(row.run->assignments));
    figures += fmt::format(
        "<figure><img alt=\"images of run {0}\" src=\"data:image/png;base64,{1}\">"
        "<figcaption>{2}</figcaption></figure>\n",
        row.run->name(), base64(png), caption);
  }
  return figures.empty() ? figures
                         : fmt::format(
                               "<section>\n<h2>Contact sheets</h2>\n<div class=\"sheets\">\n"
                               "{}</div>\n</section>\n",
                               figures);
}

std::string plot_html(const char* heading, const std::string& svg) {
  return svg.empty() ? svg
                     : fmt::format("<section>\n<h2>{}</h2>\n<figure>{}</figure>\n</section>\n",
                                   heading, svg);
}

/// What the runs that are shown cost together.
std::string claim_html(const SweepReport& report) {
  const SweepPlan& plan = *report.plan;
  if (plan.purpose() == SweepPurpose::kPublicTuning)
    return "<div class=\"banner alarm\" role=\"alert\"><strong>PUBLIC DATA</strong><p>By the word "
           "of "
           "sweep.store_is_public all images of the record store are public. This page holds exact "
           "numbers of them, learning curves among others.</p></div>\n";
  const PlannedCost all = whole_cost(plan, run_costs(plan));
  if (!all.is_private)
    return "<div class=\"banner alarm\" role=\"alert\"><strong>NOT PRIVATE</strong><p>Runs trained "
           "without noise.</p></div>\n";
  return fmt::format(
      "<div class=\"banner private\"><p>All {} runs together, each charged in full: ({}, {})"
      "-differential privacy. A choice among them by this page is covered by that, not by the "
      "epsilon of one run.</p></div>\n",
      plan.runs.size(), epsilon_text(all.epsilon), all.delta);
}

}  // namespace

std::string sweep_report_page(const SweepReport& report) {
  return html_page("Sweep " + report.plan->name(),
                   claim_html(report) + table_html(report) +
                       plot_html("Parallel coordinates", parallel_coordinates_svg(report)) +
                       sheets_html(report) +
                       plot_html("Learning curves", learning_curves_svg(report)),
                   kSortScript);
}

}  // namespace sfumato
