#pragma once
#include <string_view>

namespace sfumato {

/// True for names that systems leave among people's files: __MACOSX, @eaDir, .DS_Store, ._*,
/// Thumbs.db, desktop.ini and the like. `path` is relative, with "/" between its parts; one such
/// part is enough. What it names is never a class, an image or worth a word.
bool is_clutter(std::string_view path);

/// True if a part of the relative path begins with a dot and so is hidden.
bool is_hidden(std::string_view path);

}  // namespace sfumato
