#include "sfumato/core/bound_text.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <random>

namespace sfumato {
namespace {

double read(const std::string& text) { return std::strtod(text.c_str(), nullptr); }

TEST(BoundText, KnownValues) {
  EXPECT_EQ(upper_bound_text(3.00004, 4), "3.001");
  EXPECT_EQ(upper_bound_text(3.0, 4), "3");
  EXPECT_EQ(upper_bound_text(9.99951, 4), "10");
  EXPECT_EQ(upper_bound_text(0.0123401, 4), "0.01235");
  EXPECT_EQ(upper_bound_text(123.41, 4), "123.5");
  EXPECT_EQ(upper_bound_text(1e-18), "1e-18");
  EXPECT_EQ(upper_bound_text(7.32841), "7.3285");
  EXPECT_EQ(upper_bound_text(0), "0");
  EXPECT_EQ(upper_bound_text(std::numeric_limits<double>::infinity()), "infinity");
  EXPECT_EQ(upper_bound_text(std::nan("")), "nan");
  EXPECT_EQ(upper_bound_text(-1.23456, 3), "-1.23");
  EXPECT_EQ(lower_bound_text(2.99999, 4), "2.999");
  EXPECT_EQ(lower_bound_text(1.0000, 4), "1");
  EXPECT_EQ(lower_bound_text(0.99999999, 4), "0.9999");
  EXPECT_EQ(lower_bound_text(-1.23456, 3), "-1.24");
  EXPECT_EQ(lower_bound_text(0), "0");
  EXPECT_EQ(upper_bound_fixed(3.2101, 2), "3.22");
  EXPECT_EQ(upper_bound_fixed(3.21, 2), "3.21");
  EXPECT_EQ(upper_bound_fixed(0.001, 2), "0.01");
  EXPECT_EQ(upper_bound_fixed(0, 2), "0.00");
  EXPECT_EQ(upper_bound_fixed(9.999, 2), "10.00");
}

// The definition: on the right side of the value, and less than one unit of the last digit away.
TEST(BoundText, NoTextIsOnTheWrongSide) {
  std::mt19937_64 random(1);
  std::uniform_real_distribution<double> exponent(-20, 20);
  for (int i = 0; i < 20000; ++i) {
    double value = std::pow(10.0, exponent(random));
    // Neighbours of short decimals, where rounding to nearest errs by the last bit.
    if (i % 3 == 0) value = read(upper_bound_text(value, 3));
    if (i % 6 == 3) value = std::nextafter(value, i % 4 < 2 ? 0.0 : 1e300);
    for (const int digits : {1, 3, 4, 5, 9}) {
      const double unit = std::pow(10.0, std::floor(std::log10(value)) - digits + 1);
      const double up = read(upper_bound_text(value, digits));
      EXPECT_GE(up, value) << digits;
      EXPECT_LE(up, value + unit * (1 + 1e-6)) << digits;
      const double down = read(lower_bound_text(value, digits));
      EXPECT_LE(down, value) << digits;
      EXPECT_GE(down, value - unit * (1 + 1e-6)) << digits;
    }
    if (value > 1e9) continue;
    EXPECT_GE(read(upper_bound_fixed(value, 2)), value);
    EXPECT_LE(read(upper_bound_fixed(value, 2)), value + 0.01 + 1e-6);
    EXPECT_GE(static_cast<double>(upper_bound_float(value)), value);
    EXPECT_LE(upper_bound_float(value), value * (1 + 1.2e-7));
  }
}

TEST(BoundText, EpsilonIsRoundedUpToFourDigits) {
  EXPECT_EQ(epsilon_text(10), "10");
  EXPECT_EQ(epsilon_text(9.9), "9.9");
  EXPECT_EQ(epsilon_text(0.7), "0.7");
  EXPECT_EQ(epsilon_text(9.87601), "9.877");
  EXPECT_EQ(epsilon_text(9.99951), "10");
  EXPECT_EQ(epsilon_text(9.99985), "10") << "of a target of 10";
  EXPECT_EQ(epsilon_text(0.0123401), "0.01235");
  EXPECT_EQ(epsilon_text(123.41), "123.5");
  EXPECT_EQ(epsilon_text(0), "0");
  // By less than a thousandth of the last digit, too.
  EXPECT_EQ(epsilon_text(2.0000000000001), "2.001");
}

}  // namespace
}  // namespace sfumato
