#include "sfumato/report/progress.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <sstream>

namespace sfumato {
namespace {

ProgressState at(std::int64_t step) {
  return {.step = step, .total = 10, .items_per_s = 0, .epsilon = {}, .seconds_left = -1};
}

TEST(ProgressText, SaysWhatIsKnown) {
  EXPECT_EQ(progress_text({120, 2000, 349.6, 3.21, 245}),
            "step 120/2000 · 350 images/s · ε 3.21 · 4 min 5 s left");
  EXPECT_EQ(progress_text({120, 2000, 349.6, 3.21, 245, "", true}),
            "step 120/2000 · nominal 350 images/s · ε 3.21 · 4 min 5 s left");
  EXPECT_EQ(progress_text({1, 2, 1.25, {}, 0}), "step 1/2 · 1.2 images/s · 0.0 s left");
  EXPECT_EQ(progress_text({1, 2, 0, 0.0, std::numeric_limits<double>::infinity()}),
            "step 1/2 · ε 0.00");
  EXPECT_EQ(progress_text({0, 2, 0, {}, std::nan("")}), "step 0/2");
  EXPECT_EQ(progress_text({1, 2, 0, {}, -1, "fakes all alike"}),
            "step 1/2 · warning: fakes all alike");
}

TEST(ProgressText, NeverShowsEpsilonTooSmall) {
  for (int i = 0; i < 1000; ++i) {
    const double epsilon = i * 0.01;
    const std::string text = progress_text({1, 1, 0, epsilon, -1});
    const double shown = std::stod(text.substr(text.find("ε ") + 3));
    EXPECT_GE(shown, epsilon);
    EXPECT_LT(shown, epsilon + 0.0101);
  }
  EXPECT_EQ(progress_text({1, 1, 0, 3.2101, -1}), "step 1/1 · ε 3.22");
}

TEST(Progress, PlainLinesAreRareButFirstAndLastAreThere) {
  std::ostringstream out;
  double now_s = 100;
  Progress progress(out, false, 30, [&] { return now_s; });
  for (int step = 0; step <= 9; ++step) {
    progress.update(at(step));
    now_s += 10;
  }
  EXPECT_EQ(out.str(), "step 0/10\nstep 3/10\nstep 6/10\nstep 9/10\n");
  progress.update(at(10));
  progress.finish();
  EXPECT_EQ(out.str(), "step 0/10\nstep 3/10\nstep 6/10\nstep 9/10\nstep 10/10\n");
  progress.finish();  // nothing new
  EXPECT_EQ(out.str(), "step 0/10\nstep 3/10\nstep 6/10\nstep 9/10\nstep 10/10\n");
}

TEST(Progress, TerminalRewritesOneLine) {
  std::ostringstream out;
  double now_s = 0;
  Progress progress(out, true, 30, [&] { return now_s; });
  progress.update(at(1));
  now_s = 0.05;
  progress.update(at(2));  // too soon
  now_s = 0.125;
  progress.update(at(3));
  now_s = 0.15;
  progress.update(at(4));
  progress.finish();
  EXPECT_EQ(out.str(), "\rstep 1/10\x1b[K\rstep 3/10\x1b[K\rstep 4/10\x1b[K\n");
}

TEST(Progress, FinishWithoutUpdatesIsSilent) {
  std::ostringstream out;
  Progress(out, true, 1).finish();
  Progress(out, false, 1).finish();
  EXPECT_EQ(out.str(), "");
}

TEST(RateMeter, IsTheRateWhenItIsConstant) {
  RateMeter meter(10);
  EXPECT_EQ(meter.items_per_s(), 0);
  for (const double seconds : {0.1, 3.0, 0.7}) {
    meter.add(50 * seconds, seconds);
    EXPECT_NEAR(meter.items_per_s(), 50, 1e-9);
  }
  RateMeter first(10);
  first.add(30, 2);
  EXPECT_DOUBLE_EQ(first.items_per_s(), 15);
}

TEST(RateMeter, ForgetsHalfInAHalfLife) {
  RateMeter meter(10);
  for (int i = 0; i < 10'000; ++i) meter.add(1, 0.01);  // 100 per second for long
  EXPECT_NEAR(meter.items_per_s(), 100, 0.1);
  for (int i = 0; i < 1'000; ++i) meter.add(3, 0.01);  // 300 per second for one half-life
  EXPECT_NEAR(meter.items_per_s(), 200, 0.5);
}

TEST(RateMeter, SurvivesIntervalsOfZero) {
  RateMeter meter(10);
  meter.add(5, 0);
  EXPECT_EQ(meter.items_per_s(), 0);
  meter.add(5, 1);
  EXPECT_NEAR(meter.items_per_s(), 10, 1);
  EXPECT_TRUE(std::isfinite(meter.items_per_s()));
}

}  // namespace
}  // namespace sfumato
