#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "sfumato/config/setting.h"

namespace sfumato {

/// One YAML document as a tree with positions, duplicate keys included (yaml-cpp's own nodes
/// would keep one of them silently). Nothing at all is kNull. On a mistake (syntax, control
/// characters, anchors, tags, a second document, nesting deeper than 20) `mistake` is set.
GivenValue parse_yaml(std::string_view text, std::optional<Mistake>& mistake);

/// The first byte that is no printable UTF-8 text, if there is one. A tab or a line break counts
/// as printable.
std::optional<Mistake> find_unprintable(std::string_view text);

/// A scalar that YAML reads back as exactly this text: plain where that is safe, else in double
/// quotes with escapes.
std::string yaml_quote(std::string_view text);

/// For messages and comments: without control characters, and cut if it is long.
std::string shown(std::string_view text);

}  // namespace sfumato
