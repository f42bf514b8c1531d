#pragma once
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "sfumato/core/error.h"
#include "sfumato/core/text.h"

namespace sfumato {

/// The enumerator whose place in the enumeration is that of `name` in `names`. UsageError, which
/// calls it `what`, for another.
template <typename Enum>
Enum parse_name(const std::string& name, const std::vector<std::string>& names,
                std::string_view what) {
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end())
    throw UsageError(fmt::format("unknown {} '{}'{}", what, name, did_you_mean(name, names)));
  return static_cast<Enum>(found - names.begin());
}

}  // namespace sfumato
