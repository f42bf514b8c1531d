#pragma once
#include <string>

#include "sfumato/evaluate/evaluation.h"

namespace sfumato {

/// Four significant digits; a dash for what was not measured.
std::string number_text(double value);
/// The value, with its spread where there is one.
std::string value_text(const Measurement& one);

}  // namespace sfumato
