#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "sfumato/core/text.h"
#include "sfumato/report/svg_plot.h"
#include "sweep/report_rows.h"

namespace sfumato {
namespace {

constexpr double kWidth = 860, kHeight = 300, kMargin = 56;

/// Where values lie on an axis: numbers by size (by their logarithm over more than a decade), words
/// in the order in which they come.
class PlotAxis {
 public:
  PlotAxis(std::string name, const std::vector<std::string>& texts) : name_(std::move(name)) {
    for (const std::string& text : texts)
      if (!text.empty() && std::ranges::find(words_, text) == words_.end()) words_.push_back(text);
    numeric_ =
        std::ranges::all_of(words_, [](const auto& w) { return parse_double(w).has_value(); });
    if (!numeric_ || words_.empty()) return;
    low_ = std::numeric_limits<double>::infinity();
    high_ = -low_;
    for (const std::string& word : words_) {
      low_ = std::min(low_, *parse_double(word));
      high_ = std::max(high_, *parse_double(word));
    }
    logarithmic_ = low_ > 0 && high_ >= 10 * low_;
  }
  /// 0 (bottom) to 1 (top); 0.5 where all are one.
  double at(const std::string& text) const {
    if (numeric_) {
      const auto scaled = [&](double v) { return logarithmic_ ? std::log(v) : v; };
      const double range = scaled(high_) - scaled(low_);
      return range > 0 ? (scaled(*parse_double(text)) - scaled(low_)) / range : 0.5;
    }
    const auto place = static_cast<double>(std::ranges::find(words_, text) - words_.begin());
    return words_.size() > 1 ? place / static_cast<double>(words_.size() - 1) : 0.5;
  }
  const std::string& name() const { return name_; }
  std::string low() const { return numeric_ ? fmt::format("{:.4g}", low_) : words_.front(); }
  std::string high() const { return numeric_ ? fmt::format("{:.4g}", high_) : words_.back(); }
  bool empty() const { return words_.empty(); }

 private:
  std::string name_;
  std::vector<std::string> words_;
  bool numeric_ = false, logarithmic_ = false;
  double low_ = 0, high_ = 0;
};

std::string label(double x, double y, const std::string& text, const char* anchor) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor,
                     html_escape(text));
}

/// Blue for the lowest, by way of green to yellow for the highest: told apart by brightness as
/// well.
std::string colour_at(double share) {
  return fmt::format("hsl({:.0f} 65% {:.0f}%)", 240 - 180 * share, 40 + 12 * share);
}

std::string score_text(const ReportRow& row) {
  return row.state.score ? fmt::format("{}", *row.state.score) : std::string{};
}

std::string polyline(const std::string& points, const std::string& colour,
                     const std::string& title) {
  return fmt::format(
      "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.6\" "
      "stroke-opacity=\"0.8\"><title>{}</title></polyline>\n",
      points, colour, html_escape(title));
}

std::vector<PlotAxis> axes_of(const SweepReport& report) {
  std::vector<PlotAxis> axes;
  const auto add = [&](const std::string& name, const auto& text_of) {
    std::vector<std::string> texts;
    for (const ReportRow& row : report.rows) texts.push_back(text_of(row));
    PlotAxis axis(name, texts);
    if (!axis.empty()) axes.push_back(axis);
  };
  for (const std::string& key : report.keys)
    add(key, [&](const ReportRow& row) { return SweepReport::value(row, key); });
  if (report.has_scores) add("score", score_text);
  return axes;
}

}  // namespace

std::string parallel_coordinates_svg(const SweepReport& report) {
  const std::vector<PlotAxis> axes = axes_of(report);
  if (axes.size() < 2) return {};
  const double gap = (kWidth - 2 * kMargin) / static_cast<double>(axes.size() - 1);
  const auto y_at = [](double share) { return kHeight - 40 - share * (kHeight - 80); };
  std::string content;
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const double x = kMargin + gap * static_cast<double>(i);
    content += fmt::format(
        "<line x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"40\" y2=\"{1}\" "
        "stroke=\"currentColor\" stroke-opacity=\"0.4\"/>\n",
        x, kHeight - 40);
    // Long names stay inside the picture.
    const char* anchor = i == 0 ? "start" : i + 1 == axes.size() ? "end" : "middle";
    const double edge = i == 0 ? 0 : i + 1 == axes.size() ? kWidth : x;
    content += label(edge, 14, axes[i].name(), anchor) + label(x, 32, axes[i].high(), "middle") +
               label(x, kHeight - 22, axes[i].low(), "middle");
  }
  for (const ReportRow& row : report.rows) {
    if (report.has_scores && !row.state.score) continue;
    std::string points;
    for (std::size_t i = 0; i < axes.size(); ++i) {
      const std::string text =
          axes[i].name() == "score" ? score_text(row) : SweepReport::value(row, axes[i].name());
      points += fmt::format("{:.1f},{:.1f} ", kMargin + gap * static_cast<double>(i),
                            y_at(axes[i].at(text)));
    }
    const double share = report.has_scores ? axes.back().at(score_text(row)) : 0.3;
    content += polyline(
        points, colour_at(share),
        fmt::format("{} {} {}", row.run->name(), to_text(row.run->assignments), score_text(row)));
  }
  return svg_picture(kWidth, kHeight, "runs as lines through the values of their settings",
                     content);
}

std::string learning_curves_svg(const SweepReport& report) {
  double last = 0, low = std::numeric_limits<double>::infinity(), high = -low;
  for (const ReportRow& row : report.rows)
    for (const CurvePoint& point : row.curve) {
      last = std::max(last, point.step);
      low = std::min(low, point.loss);
      high = std::max(high, point.loss);
    }
  if (!(last > 0)) return {};
  const double range = high > low ? high - low : 1;
  std::string content =
      label(kMargin - 6, 44, fmt::format("{:.3g}", high), "end") +
      label(kMargin - 6, kHeight - 40, fmt::format("{:.3g}", low), "end") +
      label(kWidth - kMargin, kHeight - 22, fmt::format("step {:.0f}", last), "end") +
      label(kMargin, 24, "loss", "middle");
  for (std::size_t i = 0; i < report.rows.size(); ++i) {
    const ReportRow& row = report.rows[i];
    std::string points;
    for (const CurvePoint& point : row.curve)
      points += fmt::format("{:.1f},{:.1f} ", kMargin + point.step / last * (kWidth - 2 * kMargin),
                            kHeight - 40 - (point.loss - low) / range * (kHeight - 80));
    if (points.empty()) continue;
    const double share = report.rows.size() > 1
                             ? static_cast<double>(i) / static_cast<double>(report.rows.size() - 1)
                             : 0.3;
    content +=
        polyline(points, colour_at(share), row.run->name() + " " + to_text(row.run->assignments));
  }
  return svg_picture(kWidth, kHeight, "losses by step, a line for each run", content);
}

}  // namespace sfumato
