#include "sfumato/report/svg_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "sfumato/core/text.h"

namespace sfumato {
namespace {

constexpr double kLeft = 56, kTop = 12, kBottom = 48, kRight = 14;
// Okabe and Ito's colours, told apart also by those who see fewer; dashes tell them apart in print.
constexpr const char* kCurveColours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7"};
constexpr const char* kCurveDashes[] = {"none", "7 3", "2 3", "9 3 2 3"};
constexpr double kMostDecades = 7;  // with a tick each

std::string tick_text(double value, bool logarithmic) {
  if (logarithmic && (value < 1e-3 || value > 1e4))
    return fmt::format("1e{:.0f}", std::log10(value));
  return fmt::format("{:.6g}", value);
}

/// From values to the picture.
class Frame {
 public:
  explicit Frame(const SvgPlot& plot) : plot_(plot) {}

  double x(double value) const { return kLeft + plot_.width * plot_.x.share(value); }
  double y(double value) const { return kTop + plot_.height * (1 - plot_.y.share(value)); }
  double right() const { return kLeft + plot_.width; }
  double bottom() const { return kTop + plot_.height; }

  std::string grid() const {
    std::string out;
    for (const double tick : plot_.x.ticks())
      out += fmt::format(
          "<path d=\"M{0:.1f} {1:.1f}V{2:.1f}\" stroke=\"currentColor\" stroke-opacity=\".2\"/>\n"
          "<text x=\"{0:.1f}\" y=\"{3:.1f}\" text-anchor=\"middle\">{4}</text>\n",
          x(tick), kTop, bottom(), bottom() + 16, tick_text(tick, plot_.x.logarithmic));
    for (const double tick : plot_.y.ticks())
      out += fmt::format(
          "<path d=\"M{0:.1f} {1:.1f}H{2:.1f}\" stroke=\"currentColor\" stroke-opacity=\".2\"/>\n"
          "<text x=\"{3:.1f}\" y=\"{4:.1f}\" text-anchor=\"end\">{5}</text>\n",
          kLeft, y(tick), right(), kLeft - 6, y(tick) + 4, tick_text(tick, plot_.y.logarithmic));
    return out + fmt::format(
                     "<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>\n<text "
                     "transform=\"translate(13 {:.1f}) rotate(-90)\" text-anchor=\"middle\">{}"
                     "</text>\n",
                     kLeft + plot_.width / 2, bottom() + 38, html_escape(plot_.x.label),
                     kTop + plot_.height / 2, html_escape(plot_.y.label));
  }

  /// The same picture with far fewer points: those that move less than a third of a pixel go.
  std::string line(const SvgPoints& points) const {
    std::string out;
    double last_x = -1e9, last_y = -1e9;
    for (std::size_t i = 0; i < points.size(); ++i) {
      const double at_x = x(points[i].first), at_y = y(points[i].second);
      if (i + 1 < points.size() && std::abs(at_x - last_x) + std::abs(at_y - last_y) < 0.33)
        continue;
      out += fmt::format("{:.1f},{:.1f} ", at_x, at_y);
      last_x = at_x, last_y = at_y;
    }
    return out;
  }

  std::string excluded() const {
    if (plot_.excluded.empty()) return {};
    const std::string edge = line(plot_.excluded);
    return fmt::format(
        "<polygon points=\"{0}{1:.1f},{2:.1f} {3:.1f},{2:.1f}\" fill=\"currentColor\" "
        "fill-opacity=\".12\"/>\n<polyline points=\"{0}\" fill=\"none\" stroke=\"currentColor\" "
        "stroke-width=\"1.5\"/>\n",
        edge, right(), kTop, kLeft);
  }

  std::string mark() const {
    if (plot_.mark_text.empty()) return {};
    const double at_x = x(plot_.mark.first), at_y = y(plot_.mark.second);
    const bool to_left = plot_.x.share(plot_.mark.first) > 0.7;
    // Below the point where there is no room above.
    const double beside = at_y < kTop + 24 ? 20 : -8;
    return fmt::format(
        "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\" fill=\"{}\"/>\n<text x=\"{:.1f}\" "
        "y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n",
        at_x, at_y, kCurveColours[1], at_x + (to_left ? -8 : 8), at_y + beside,
        to_left ? "end" : "start", html_escape(plot_.mark_text));
  }

 private:
  const SvgPlot& plot_;
};

std::string curve_of(const Frame& frame, const SvgCurve& curve, std::size_t number) {
  if (curve.reference)
    return fmt::format(
        "<polyline points=\"{}\" fill=\"none\" stroke=\"currentColor\" stroke-opacity=\".6\" "
        "stroke-dasharray=\"1 4\"/>\n",
        frame.line(curve.points));
  return fmt::format(
      "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\" "
      "stroke-dasharray=\"{}\"/>\n",
      frame.line(curve.points), kCurveColours[number % std::size(kCurveColours)],
      kCurveDashes[number % std::size(kCurveDashes)]);
}

std::string legend(const Frame& frame, const std::vector<std::pair<std::string, std::size_t>>& of) {
  std::string out;
  for (std::size_t i = 0; i < of.size(); ++i) {
    const double y = frame.bottom() - 14 - 16 * static_cast<double>(of.size() - 1 - i);
    out += fmt::format(
        "<path d=\"M{:.1f} {:.1f}h26\" stroke=\"{}\" stroke-width=\"2\" "
        "stroke-dasharray=\"{}\"/>\n<text x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n",
        frame.right() - 120, y, kCurveColours[of[i].second % std::size(kCurveColours)],
        kCurveDashes[of[i].second % std::size(kCurveDashes)], frame.right() - 88, y + 4,
        html_escape(of[i].first));
  }
  return out;
}

}  // namespace

std::string svg_picture(double width, double height, const std::string& name,
                        const std::string& content) {
  return fmt::format(
      "<svg viewBox=\"0 0 {0:.0f} {1:.0f}\" role=\"img\" aria-label=\"{2}\" "
      "style=\"display:block;width:100%;max-width:{0:.0f}px;height:auto;font:12px "
      "system-ui,sans-serif\" fill=\"currentColor\">\n<title>{2}</title>\n{3}</svg>\n",
      width, height, html_escape(name), content);
}

double SvgAxis::share(double value) const {
  const double inside = std::clamp(value, low, high);
  if (!(high > low)) return 0;
  return logarithmic ? std::log(inside / low) / std::log(high / low)
                     : (inside - low) / (high - low);
}

double SvgAxis::value(double share) const {
  if (share <= 0) return low;
  if (share >= 1) return high;
  return logarithmic ? low * std::pow(high / low, share) : low + share * (high - low);
}

std::vector<double> SvgAxis::ticks() const {
  std::vector<double> all;
  if (!(high > low)) return all;
  if (logarithmic) {
    const double first = std::ceil(std::log10(low) - 1e-9);
    const double last = std::floor(std::log10(high) + 1e-9);
    const double stride = std::ceil((last - first + 1) / kMostDecades);
    for (double exponent = last; exponent >= first; exponent -= stride)
      all.push_back(std::pow(10.0, exponent));
    return all;
  }
  // 1, 2 or 5 times a power of ten.
  const double rough = (high - low) / 5, power = std::pow(10.0, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double factor : {5.0, 2.0, 1.0})
    if (factor * power >= rough * 0.999) step = factor * power;
  for (double i = std::ceil(low / step - 1e-9); i * step <= high * (1 + 1e-9); ++i)
    all.push_back(i * step + 0.0);  // no -0
  return all;
}

std::string svg_plot(const SvgPlot& plot) {
  const Frame frame(plot);
  std::string content = frame.excluded() + frame.grid();
  std::vector<std::pair<std::string, std::size_t>> named;
  std::size_t number = 0;
  for (const SvgCurve& curve : plot.curves) {
    content += curve_of(frame, curve, number);
    if (curve.reference) continue;
    if (!curve.name.empty()) named.emplace_back(curve.name, number);
    ++number;
  }
  content += legend(frame, named) + frame.mark();
  return svg_picture(kLeft + plot.width + kRight, kTop + plot.height + kBottom, plot.name, content);
}

}  // namespace sfumato
