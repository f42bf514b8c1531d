#pragma once
#include <string>

namespace sfumato {

// How every ε, δ and other bound is printed. What is read back from the text (as a double) is never
// on the wrong side of the value: a claim is not rounded in its own favour. An infinite value is
// "infinity".

/// Of an upper bound (what is claimed or was spent): rounded up to `digits` significant digits.
std::string upper_bound_text(double value, int digits = 5);

/// Of the ε of a run, for people: four digits on the card and wherever a run is spoken of, so that
/// one claim is one text. `account` and calibration, of no run, print upper_bound_text()'s five.
std::string epsilon_text(double epsilon);

/// Of a lower bound (what is at least lost, or what is left to spend): rounded down.
std::string lower_bound_text(double value, int digits = 5);

/// Rounded up to `decimals` places, all of them shown: lines that are rewritten stay as wide.
std::string upper_bound_fixed(double value, int decimals);

/// The least float that is not below `value`, for formats without doubles.
float upper_bound_float(double value);

}  // namespace sfumato
