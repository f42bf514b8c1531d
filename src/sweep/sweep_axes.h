#pragma once
#include <string>
#include <vector>

#include "sfumato/sweep/sweep_file.h"

namespace sfumato {

/// Reads vary, zip and exclude of `file.settings` into `file`, whose base is known. Adds what is
/// wrong to `mistakes`.
void read_axes(SweepFile& file, std::vector<std::string>& mistakes);

}  // namespace sfumato
