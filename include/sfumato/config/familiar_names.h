#pragma once
#include <span>
#include <string>
#include <string_view>

namespace sfumato {

/// A name that people bring from other programs.
struct FamiliarName {
  const char* name;     ///< "lr"
  const char* setting;  ///< "optimizer.learning_rate": what it is here; "" for nothing alone
  /// Why it is not simply that; "" where the two mean the same, which makes the name an alias.
  const char* says;
  bool is_alias() const { return says[0] == '\0'; }
};
/// The table: one row per name. docs/glossary.md has each of them.
std::span<const FamiliarName> familiar_names();
/// Ignoring case, '-' for '_'; nullptr for none.
const FamiliarName* find_familiar_name(std::string_view name);
/// "'epochs': there are none here: ..." or "'lr' is optimizer.learning_rate here".
std::string explanation_of(const FamiliarName& name);

}  // namespace sfumato
