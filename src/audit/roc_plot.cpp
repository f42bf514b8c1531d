#include "audit/roc_plot.h"

#include <fmt/format.h>

#include "sfumato/report/svg_plot.h"

namespace sfumato {
namespace {

constexpr double kPlotSide = 320;

SvgAxis rates(const char* label, bool logarithmic, double least) {
  return {label, logarithmic ? least : 0, 1, logarithmic};
}

}  // namespace

std::string roc_svg(const std::vector<NamedRoc>& curves, const ClaimedBound* claim,
                    bool logarithmic, double least) {
  SvgPlot plot;
  plot.name = fmt::format("ROC curves, {} axes", logarithmic ? "logarithmic" : "linear");
  plot.x = rates("false positive rate", logarithmic, least);
  plot.y = rates("true positive rate", logarithmic, least);
  plot.width = plot.height = kPlotSide;
  if (claim) {
    const int steps = static_cast<int>(3 * kPlotSide);  // a third of a pixel apart
    for (int i = 0; i <= steps; ++i) {
      const double rate = plot.x.value(static_cast<double>(i) / steps);
      plot.excluded.emplace_back(rate, claim->max_true_positive_rate(rate));
    }
  }
  plot.curves.push_back({"", {{plot.x.low, plot.x.low}, {1, 1}}, /*reference=*/true});
  for (const NamedRoc& roc : curves) {
    SvgCurve curve{roc.name, {}, false};
    for (const RocPoint& point : roc.curve)
      curve.points.emplace_back(point.false_positive_rate, point.true_positive_rate);
    plot.curves.push_back(std::move(curve));
  }
  return svg_plot(plot);
}

}  // namespace sfumato
