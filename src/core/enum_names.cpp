#include "sfumato/core/enum_names.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <stdexcept>

#include "sfumato/core/error.h"
#include "sfumato/core/text.h"

namespace sfumato {

void throw_unknown_name(std::string_view what, std::string_view name,
                        const std::vector<std::string>& names) {
  throw UsageError(fmt::format("{} '{}' is none of {}{}", what, name, fmt::join(names, ", "),
                               did_you_mean(name, names)));
}

void throw_without_name(std::string_view what) {
  throw std::logic_error(fmt::format("a {} without a name", what));
}

}  // namespace sfumato
