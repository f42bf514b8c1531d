#pragma once
#include <span>
#include <string>
#include <string_view>

namespace sfumato {

/// The sections whose settings a subcommand reads, inner ones ("mechanism.stages") with their
/// outer one; empty where it reads all.
std::span<const std::string_view> sections_read_by(std::string_view subcommand);

/// As settings_help(), of these sections alone, and the names of the others; of all if empty.
std::string settings_help_of(std::span<const std::string_view> sections);

}  // namespace sfumato
