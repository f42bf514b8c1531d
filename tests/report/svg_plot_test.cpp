#include "sfumato/report/svg_plot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "support/count_of.h"
#include "support/well_formed.h"

namespace sfumato {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

SvgPlot plot() {
  SvgPlot plot;
  plot.name = "what grows";
  plot.x = {"steps", 0, 200, false};
  plot.y = {"size", 1e-6, 1, true};
  plot.excluded = {{0, 0.5}, {200, 1}};
  plot.curves = {{"", {{0, 1e-6}, {200, 1}}, true},
                 {"first", {{0, 1e-6}, {100, 1e-3}, {200, 1}}, false},
                 {"second", {{0, 1}, {200, 1e-6}}, false}};
  plot.mark = {100, 1e-3};
  plot.mark_text = "here";
  return plot;
}

TEST(WellFormed, TellsWhatIsNot) {
  EXPECT_EQ(test::xml_defect("<a b=\"c &amp; d\"><e/>f</a>\n"), "");
  for (const char* wrong : {"<a>", "<a></b>", "<a b=c/>", "<a b=\"1\" b=\"2\"/>", "<a>&</a>",
                            "<a/><b/>", "<a b=\"<\"/>", "<a", "x<a/>"})
    EXPECT_NE(test::xml_defect(wrong), "") << wrong;
}

TEST(SvgPlot, IsWellFormedAndNamed) {
  const std::string svg = svg_plot(plot());
  EXPECT_EQ(test::xml_defect(svg), "");
  EXPECT_THAT(svg, HasSubstr("role=\"img\" aria-label=\"what grows\""));
  EXPECT_THAT(svg, HasSubstr("<title>what grows</title>"));
  EXPECT_THAT(svg, HasSubstr(">first</text>"));
  EXPECT_THAT(svg, HasSubstr(">here</text>"));
  EXPECT_EQ(test::count_of(svg, "<polyline"), 4u);  // with the edge of what is excluded
  EXPECT_EQ(test::count_of(svg, "<polygon"), 1u);
  for (const char* word : {"<script", "http", "url(", "nan", "inf", ">-0<"})
    EXPECT_THAT(svg, Not(HasSubstr(word)));
}

TEST(SvgPlot, EscapesEveryText) {
  SvgPlot hostile = plot();
  hostile.name = hostile.x.label = hostile.y.label = hostile.mark_text = hostile.curves[1].name =
      "\"><script>alert('1')</script>&";
  const std::string svg = svg_plot(hostile);
  EXPECT_EQ(test::xml_defect(svg), "");
  EXPECT_THAT(svg, Not(HasSubstr("<script")));
  EXPECT_EQ(test::count_of(svg, "&lt;script"), 6u);  // the name twice
}

TEST(SvgPlot, PutsValuesWhereTheAxesSay) {
  // The area begins at (56, 12) and is 320 by 210: half of x, three of six decades of y.
  EXPECT_THAT(svg_plot(plot()), HasSubstr("<circle cx=\"216.0\" cy=\"117.0\""));
  EXPECT_THAT(svg_plot(plot()), HasSubstr("points=\"56.0,222.0 216.0,117.0 376.0,12.0 \""));
}

TEST(SvgAxis, SharesAndValuesAreInverse) {
  for (const SvgAxis& axis : {SvgAxis{"", -3, 5, false}, SvgAxis{"", 1e-12, 10, true}})
    for (const double share : {0.0, 0.1, 0.5, 0.99, 1.0})
      EXPECT_NEAR(axis.share(axis.value(share)), share, 1e-12);
  const SvgAxis axis{"", 0, 1, false};
  EXPECT_EQ(axis.share(-5), 0);
  EXPECT_EQ(axis.share(7), 1);
  EXPECT_EQ((SvgAxis{"", 2, 2, false}).share(2), 0);
}

TEST(SvgAxis, TicksAreRoundAndFew) {
  EXPECT_THAT((SvgAxis{"", 0, 1, false}).ticks(),
              testing::Pointwise(testing::DoubleNear(1e-12), {0.0, 0.2, 0.4, 0.6, 0.8, 1.0}));
  EXPECT_THAT((SvgAxis{"", 0, 2000, false}).ticks(), ElementsAre(0, 500, 1000, 1500, 2000));
  EXPECT_THAT((SvgAxis{"", 0, 11.2, false}).ticks(), ElementsAre(0, 5, 10));
  EXPECT_THAT((SvgAxis{"", 1e-3, 1, true}).ticks(),
              testing::Pointwise(testing::DoubleNear(1e-12), {1.0, 0.1, 0.01, 0.001}));
  EXPECT_LE((SvgAxis{"", 1e-12, 1, true}).ticks().size(), 8u);
  EXPECT_THAT((SvgAxis{"", 1, 1, false}).ticks(), IsEmpty());
}

}  // namespace
}  // namespace sfumato
