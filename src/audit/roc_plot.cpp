#include "audit/roc_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "sfumato/core/text.h"

namespace sfumato {
namespace {

constexpr double kPlotSide = 320, kLeft = 56, kTop = 12, kBottom = 48, kRight = 12;
// Okabe and Ito's colours, told apart also by those who see fewer; dashes tell them apart in print.
constexpr const char* kColours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7"};
constexpr const char* kDashes[] = {"none", "7 3", "2 3", "9 3 2 3"};

/// From rates to points of the picture.
class Axes {
 public:
  Axes(bool logarithmic, double least) : logarithmic_(logarithmic), least_(least) {}

  double share(double rate) const {
    if (!logarithmic_) return std::clamp(rate, 0.0, 1.0);
    return 1 - std::log(std::clamp(rate, least_, 1.0)) / std::log(least_);
  }
  double x(double rate) const { return kLeft + kPlotSide * share(rate); }
  double y(double rate) const { return kTop + kPlotSide * (1 - share(rate)); }
  std::string point(double fpr, double tpr) const {
    return fmt::format("{:.1f},{:.1f} ", x(fpr), y(tpr));
  }

  std::vector<double> ticks() const {
    if (!logarithmic_) return {0, 0.2, 0.4, 0.6, 0.8, 1};
    std::vector<double> decades;
    for (int exponent = 0; std::pow(10.0, exponent) > least_ * 0.999; --exponent)
      decades.push_back(std::pow(10.0, exponent));
    return decades;
  }
  /// Rates a third of a pixel apart.
  std::vector<double> fine() const {
    std::vector<double> rates;
    const int steps = static_cast<int>(3 * kPlotSide);
    for (int i = 0; i <= steps; ++i) {
      const double part = static_cast<double>(i) / steps;
      rates.push_back(logarithmic_ ? std::pow(least_, 1 - part) : part);
    }
    return rates;
  }

 private:
  bool logarithmic_;
  double least_;
};

std::string grid(const Axes& axes) {
  std::string out;
  for (const double rate : axes.ticks()) {
    const std::string label = rate == 0 ? "0" : fmt::format("{:.3g}", rate);
    out += fmt::format(
        "<path d=\"M{0:.1f} {1:.1f}V{2:.1f}M{3:.1f} {4:.1f}H{5:.1f}\" stroke=\"currentColor\" "
        "stroke-opacity=\".2\"/>\n<text x=\"{0:.1f}\" y=\"{6:.1f}\" text-anchor=\"middle\">{8}"
        "</text>\n<text x=\"{7:.1f}\" y=\"{9:.1f}\" text-anchor=\"end\">{8}</text>\n",
        axes.x(rate), kTop, kTop + kPlotSide, kLeft, axes.y(rate), kLeft + kPlotSide,
        kTop + kPlotSide + 16, kLeft - 6, label, axes.y(rate) + 4);
  }
  return out + fmt::format(
                   "<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">false positive rate"
                   "</text>\n<text transform=\"translate(13 {:.1f}) rotate(-90)\" "
                   "text-anchor=\"middle\">true positive rate</text>\n",
                   kLeft + kPlotSide / 2, kTop + kPlotSide + 38, kTop + kPlotSide / 2);
}

/// The same picture with far fewer points: those that move less than a third of a pixel go.
std::string curve_points(const Axes& axes, const std::vector<RocPoint>& curve) {
  std::string out;
  double last_x = -1e9, last_y = -1e9;
  for (std::size_t i = 0; i < curve.size(); ++i) {
    const double x = axes.x(curve[i].false_positive_rate), y = axes.y(curve[i].true_positive_rate);
    if (i + 1 < curve.size() && std::abs(x - last_x) + std::abs(y - last_y) < 0.33) continue;
    out += axes.point(curve[i].false_positive_rate, curve[i].true_positive_rate);
    last_x = x, last_y = y;
  }
  return out;
}

std::string excluded_region(const Axes& axes, const ClaimedBound& claim) {
  std::string edge;
  for (const double rate : axes.fine())
    edge += axes.point(rate, claim.max_true_positive_rate(rate));
  return fmt::format(
      "<polygon points=\"{}{:.1f},{:.1f} {:.1f},{:.1f}\" fill=\"currentColor\" "
      "fill-opacity=\".12\"/>\n<polyline points=\"{}\" fill=\"none\" stroke=\"currentColor\" "
      "stroke-width=\"1.5\"/>\n",
      edge, kLeft + kPlotSide, kTop, kLeft, kTop, edge);
}

std::string legend(const std::vector<NamedRoc>& curves) {
  std::string out;
  for (std::size_t i = 0; i < curves.size(); ++i) {
    const double y = kTop + kPlotSide - 14 - 16 * static_cast<double>(curves.size() - 1 - i);
    out += fmt::format(
        "<path d=\"M{:.1f} {:.1f}h26\" stroke=\"{}\" stroke-width=\"2\" "
        "stroke-dasharray=\"{}\"/>\n<text x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n",
        kLeft + kPlotSide - 120, y, kColours[i % std::size(kColours)],
        kDashes[i % std::size(kDashes)], kLeft + kPlotSide - 88, y + 4,
        html_escape(curves[i].name));
  }
  return out;
}

}  // namespace

std::string roc_svg(const std::vector<NamedRoc>& curves, const ClaimedBound* claim,
                    bool logarithmic, double least) {
  const Axes axes(logarithmic, least);
  std::string out = fmt::format(
      "<svg viewBox=\"0 0 {0:.0f} {1:.0f}\" width=\"{0:.0f}\" role=\"img\" aria-label=\"ROC "
      "curves, {2} axes\" style=\"max-width:100%;height:auto;font:12px system-ui,sans-serif\" "
      "fill=\"currentColor\">\n",
      kLeft + kPlotSide + kRight, kTop + kPlotSide + kBottom,
      logarithmic ? "logarithmic" : "linear");
  if (claim) out += excluded_region(axes, *claim);
  out += grid(axes);
  const double start = axes.fine().front();
  const std::string diagonal = axes.point(start, start) + axes.point(1, 1);
  out += fmt::format(
      "<polyline points=\"{}\" fill=\"none\" stroke=\"currentColor\" stroke-opacity=\".6\" "
      "stroke-dasharray=\"1 4\"/>\n",
      diagonal);
  for (std::size_t i = 0; i < curves.size(); ++i)
    out += fmt::format(
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\" "
        "stroke-dasharray=\"{}\"/>\n",
        curve_points(axes, curves[i].curve), kColours[i % std::size(kColours)],
        kDashes[i % std::size(kDashes)]);
  return out + legend(curves) + "</svg>\n";
}

}  // namespace sfumato
