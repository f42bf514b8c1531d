#pragma once
#include <string>
#include <utility>
#include <vector>

namespace sfumato {

/// An SVG picture to stand in a page, as wide as its place and no wider than `width` pixels. `name`
/// is what a screen reader says and a pointer shows; `content` is SVG whose texts are escaped.
std::string svg_picture(double width, double height, const std::string& name,
                        const std::string& content);

/// One axis. Values beyond its ends are drawn at them.
struct SvgAxis {
  std::string label;
  double low = 0, high = 1;
  bool logarithmic = false;  ///< then low > 0

  /// Where a value lies between the ends: 0 to 1.
  double share(double value) const;
  /// The value there, exactly at the ends.
  double value(double share) const;
  /// Round values between the ends, some five of them.
  std::vector<double> ticks() const;
};

using SvgPoints = std::vector<std::pair<double, double>>;

struct SvgCurve {
  std::string name;  ///< in the legend; empty: in none
  SvgPoints points;
  bool reference = false;  ///< thin and dotted, to compare with
};

/// Curves over two axes.
struct SvgPlot {
  std::string name;  ///< as of svg_picture
  SvgAxis x, y;
  double width = 320, height = 210;  ///< of the area between the axes, in pixels
  SvgPoints excluded;                ///< the lower edge of what cannot be, shaded; empty: nothing
  std::vector<SvgCurve> curves;
  /// A point with words beside it; none without words.
  std::pair<double, double> mark;
  std::string mark_text;
};

/// The plot as SVG in the page's colours, light and dark; no script, nothing from elsewhere. Curves
/// are told apart by colours that fewer see alike (Okabe, Ito) and by dashes.
std::string svg_plot(const SvgPlot& plot);

}  // namespace sfumato
