#pragma once
#include <string>
#include <vector>

#include "sfumato/sweep/sweep_file.h"

namespace sfumato {

/// Of every purpose but public_tuning a score reaches others: with the best run of a selection, or
/// in the report's runs.csv. What runs cost covers scores of what they release and of public data
/// alone. Words show what is plainly none, which is added to `mistakes`; the rest is the word of
/// whoever wrote the file.
void check_score(const SweepFile& file, std::vector<std::string>& mistakes);

}  // namespace sfumato
