#include "sfumato/config/settings_tree.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "sfumato/config/familiar_names.h"
#include "sfumato/core/text.h"
#include "yaml_text.h"

namespace sfumato {
namespace {

using Kind = GivenValue::Kind;

constexpr std::size_t kLargestFile = 256 * 1024;
constexpr std::size_t kMostMistakes = 100;

std::vector<std::string> section_names(const SettingsTree& tree) {
  std::vector<std::string> names;
  for (const Section* section : tree.sections()) names.push_back(section->section_name());
  return names;
}

/// Whether a section is that of a stage, which repeats names of others: nobody is sent there who
/// did not ask for it.
bool is_of_a_stage(std::string_view section) { return section.starts_with("mechanism.stages."); }

/// The keys of other sections whose last part is `name`: somebody knows the setting but not where
/// it lives.
std::string same_name_elsewhere(const SettingsTree& tree, std::string_view name) {
  for (const Section* section : tree.sections())
    if (const SettingBase* setting = section->find_setting(name))
      if (!is_of_a_stage(section->section_name()))
        return fmt::format("; did you mean '{}'?", setting->key());
  return {};
}

/// The setting that `name` is an alias of in the section `path`; nullptr for none. In one of a
/// stage names mean what they mean there.
SettingBase* find_alias(const SettingsTree& tree, std::string_view path, std::string_view name) {
  const FamiliarName* familiar = find_familiar_name(name);
  if (familiar == nullptr || !familiar->is_alias() || is_of_a_stage(path)) return nullptr;
  SettingBase* setting = tree.find(familiar->setting);
  const std::string_view key = familiar->setting;
  return key.substr(0, key.rfind('.')) == path ? setting : nullptr;
}

/// "; 'epochs': ..." for a name that people bring from elsewhere, else "".
std::string familiar_hint(std::string_view name) {
  const FamiliarName* familiar = find_familiar_name(name);
  return familiar != nullptr ? "; " + explanation_of(*familiar) : std::string();
}

std::vector<std::string> keys_outside_stages(const SettingsTree& tree) {
  std::vector<std::string> keys = tree.keys();
  std::erase_if(keys, [](const std::string& key) { return is_of_a_stage(key); });
  return keys;
}

/// did_you_mean for a word of any length (edit distance is quadratic).
std::string suggestion(std::string_view word, std::span<const std::string> candidates) {
  return word.size() > 100 ? std::string{} : did_you_mean(word, candidates);
}

/// "; did you mean 'a.b'?" of places whose last part is nearly `name`: it lives elsewhere.
std::string section_elsewhere(const SettingsTree& tree, std::string_view name) {
  if (name.size() > 100) return {};
  std::vector<std::string> places, last_parts;
  const auto add = [&](std::string place) {
    last_parts.push_back(place.substr(place.rfind('.') + 1));
    places.push_back(std::move(place));
  };
  for (const std::string& section : section_names(tree))
    for (std::size_t dot = section.find('.'); dot != std::string::npos;) {
      const std::size_t next = section.find('.', dot + 1);
      add(section.substr(0, next));
      dot = next;
    }
  const auto found = nearest(name, last_parts);
  if (!found) return {};
  const auto at = std::ranges::find(last_parts, *found) - last_parts.begin();
  return fmt::format("; did you mean '{}'?", places[static_cast<std::size_t>(at)]);
}

/// "; did you mean 'a.b'?" where the section's name is nearly that of one, or of the setting in it.
std::string misspelt_section(const SettingsTree& tree, std::string_view section,
                             std::string_view name) {
  if (section.size() > 100) return {};
  const std::vector<std::string> names = section_names(tree);
  const auto found = nearest(section, names);
  if (!found) return {};
  const Section* meant = tree.find_section(*found);
  if (meant->find_setting(name) == nullptr) return {};
  return fmt::format("; did you mean '{}.{}'?", *found, name);
}

std::string unknown_section(const SettingsTree& tree, std::string_view name) {
  std::string hint = familiar_hint(name);
  if (hint.empty()) hint = suggestion(name, section_names(tree));
  if (hint.empty()) hint = same_name_elsewhere(tree, name);
  if (hint.empty()) hint = section_elsewhere(tree, name);
  return fmt::format("unknown section '{}'{}", shown(name), hint);
}

/// `path`: a section, or a place that only holds sections.
std::string unknown_setting(const SettingsTree& tree, const std::string& path,
                            std::string_view name) {
  std::vector<std::string> names;
  if (const Section* section = tree.find_section(path))
    for (const SettingBase* setting : section->settings()) names.push_back(setting->name());
  for (const std::string& other : section_names(tree))
    if (other.starts_with(path + "."))
      names.push_back(
          other.substr(path.size() + 1, other.find('.', path.size() + 1) - (path.size() + 1)));
  std::string hint = familiar_hint(name);
  if (hint.empty()) hint = suggestion(name, names);
  if (hint.empty()) hint = same_name_elsewhere(tree, name);
  if (hint.empty()) hint = section_elsewhere(tree, name);
  return fmt::format("unknown key '{}' in section '{}'{}", shown(name), path, hint);
}

std::string describe_kind(const GivenValue& given) {
  if (given.kind == Kind::kList) return "a list";
  return fmt::format("'{}'", shown(given.text));
}

/// Walks the sections of a parsed file, assigning what is right and collecting what is not.
class FileReader {
 public:
  FileReader(SettingsTree& tree, std::string file_name)
      : tree_(tree), file_name_(std::move(file_name)) {}

  void add(const Mistake& mistake) {
    mistakes_.push_back(
        fmt::format("{}:{}:{}: {}", file_name_, mistake.line, mistake.column, mistake.message));
  }

  void read_document(const GivenValue& root) {
    if (root.kind == Kind::kNull) return;  // empty, or nothing but comments
    if (root.kind != Kind::kMap) {
      add_at(root, fmt::format("expected sections such as 'run:', got {}", describe_kind(root)));
      return;
    }
    for_each_key(root,
                 [&](const GivenValue& key, const GivenValue& value) { read_section(key, value); });
  }

  std::vector<std::string> take_mistakes() { return std::move(mistakes_); }

 private:
  void add_at(const GivenValue& given, std::string message) {
    add(Mistake{given.line, given.column, std::move(message)});
  }

  /// Calls `visit` for every entry whose key is plain text; reports other keys and duplicates.
  template <typename Visit>
  void for_each_key(const GivenValue& map, const Visit& visit) {
    std::map<std::string_view, int> first_lines;
    for (std::size_t i = 0; i + 1 < map.items.size(); i += 2) {
      if (mistakes_.size() >= kMostMistakes) return;
      const GivenValue& key = map.items[i];
      if (key.kind != Kind::kText) {
        add_at(key, "a key must be a name");
        continue;
      }
      const auto [first, is_new] = first_lines.emplace(key.text, key.line);
      if (!is_new)
        add_at(key, fmt::format("duplicate key '{}' (first in line {}); remove one of the two",
                                shown(key.text), first->second));
      visit(key, map.items[i + 1]);
    }
  }

  void read_section(const GivenValue& key, const GivenValue& value) {
    if (key.text.find('.') != std::string::npos || !tree_.has_section_at(key.text)) {
      const std::size_t dot = key.text.rfind('.');
      add_at(key, tree_.find(key.text) != nullptr
                      ? fmt::format("unknown section '{}'; write '{}:' and, indented below it, "
                                    "'{}:'",
                                    key.text, key.text.substr(0, dot), key.text.substr(dot + 1))
                      : unknown_section(tree_, key.text));
      return;
    }
    read_entries(key.text, value);
  }

  /// The settings and the inner sections of the section (or the place that only holds sections)
  /// `path`.
  void read_entries(const std::string& path, const GivenValue& value) {
    if (value.kind == Kind::kNull) return;
    if (value.kind != Kind::kMap) {
      add_at(value, fmt::format("section '{}' holds 'key: value' lines, got {}", path,
                                describe_kind(value)));
      return;
    }
    for_each_key(value, [&](const GivenValue& name, const GivenValue& given) {
      const std::string inner = path + "." + name.text;
      if (name.text.find('.') == std::string::npos && tree_.has_section_at(inner))
        read_entries(inner, given);
      else
        read_setting(path, name, given);
    });
  }

  void read_setting(const std::string& path, const GivenValue& name, const GivenValue& given) {
    const Section* section = tree_.find_section(path);
    SettingBase* setting = section != nullptr ? section->find_setting(name.text) : nullptr;
    if (setting == nullptr) setting = find_alias(tree_, path, name.text);
    if (setting != nullptr && setting->name() != name.text &&
        setting->provenance().starts_with(file_name_ + ":")) {
      add_at(name, fmt::format("'{}' is {} here, which {} sets as well; remove one of the two",
                               shown(name.text), setting->key(), setting->provenance()));
      return;
    }
    if (setting == nullptr) {
      add_at(name, unknown_setting(tree_, path, name.text));
      return;
    }
    const std::string provenance = fmt::format("{}:{}", file_name_, name.line);
    if (std::optional<Mistake> mistake = setting->assign(given, provenance)) {
      mistake->message = fmt::format("{}: {}", setting->key(), mistake->message);
      add(*mistake);
    }
  }

  SettingsTree& tree_;
  std::string file_name_;
  std::vector<std::string> mistakes_;
};

/// What is wrong with an override, if anything.
std::optional<std::string> override_mistake(const SettingsTree& tree, std::string_view text) {
  if (const std::optional<Mistake> mistake = find_unprintable(text)) return mistake->message;
  const std::size_t equals = text.find('=');
  if (equals == std::string_view::npos) return "expected section.setting=value";
  const std::string_view key = text.substr(0, equals);
  SettingBase* setting = tree.find(key);
  if (setting == nullptr && key.find('.') != key.npos)
    setting = find_alias(tree, key.substr(0, key.rfind('.')), key.substr(key.rfind('.') + 1));
  if (setting != nullptr) {
    const auto mistake = setting->assign_text(text.substr(equals + 1), "command line");
    return mistake ? std::optional(mistake->message) : std::nullopt;
  }
  return tree.key_mistake(key);
}

}  // namespace

Section::Section(SettingsTree* tree, std::string name, std::string help)
    : section_name_(std::move(name)), section_help_(std::move(help)) {
  tree->sections_.push_back(this);
}

SettingBase* Section::find_setting(std::string_view name) const {
  for (SettingBase* setting : settings_)
    if (setting->name() == name) return setting;
  return nullptr;
}

Section* SettingsTree::find_section(std::string_view name) const {
  for (Section* section : sections_)
    if (section->section_name() == name) return section;
  return nullptr;
}

bool SettingsTree::has_section_at(std::string_view name) const {
  for (const Section* section : sections_) {
    const std::string_view other = section->section_name();
    if (other == name || (other.size() > name.size() && other.starts_with(name) &&
                          other[name.size()] == '.' && !name.empty()))
      return true;
  }
  return false;
}

SettingBase* SettingsTree::find(std::string_view key) const {
  const std::size_t dot = key.rfind('.');
  if (dot == std::string_view::npos) return nullptr;
  const Section* section = find_section(key.substr(0, dot));
  return section != nullptr ? section->find_setting(key.substr(dot + 1)) : nullptr;
}

std::vector<std::string> SettingsTree::keys() const {
  std::vector<std::string> keys;
  for (const Section* section : sections_)
    for (const SettingBase* setting : section->settings()) keys.push_back(setting->key());
  return keys;
}

std::optional<std::string> SettingsTree::key_mistake(std::string_view key) const {
  if (find(key) != nullptr) return std::nullopt;
  const std::size_t dot = key.rfind('.');
  if (dot == std::string_view::npos) {
    std::string hint = familiar_hint(key);
    if (hint.empty()) hint = same_name_elsewhere(*this, key);
    if (hint.empty()) hint = suggestion(key, keys_outside_stages(*this));
    return fmt::format("expected section.setting=value{}", hint);
  }
  // A section that is given a value, say to take a stage out.
  for (const std::string& inside : keys())
    if (inside.starts_with(fmt::format("{}.", key)))
      return fmt::format("'{}' is a section, which takes no value; set what is in it, such as '{}'",
                         shown(key.substr(dot + 1)), inside);
  const std::string_view section_name = key.substr(0, dot);
  if (has_section_at(section_name))
    return unknown_setting(*this, std::string(section_name), key.substr(dot + 1));
  std::string hint = misspelt_section(*this, section_name, key.substr(dot + 1));
  if (hint.empty()) hint = familiar_hint(key.substr(dot + 1));
  if (hint.empty())
    hint = suggestion(key, is_of_a_stage(key) ? keys() : keys_outside_stages(*this));
  if (hint.empty()) hint = suggestion(section_name, section_names(*this));
  if (hint.empty()) hint = section_elsewhere(*this, section_name);
  return fmt::format("unknown section '{}'{}", shown(section_name), hint);
}

std::optional<std::string> SettingsTree::try_override(std::string_view text) {
  const std::optional<std::string> mistake = override_mistake(*this, text);
  if (!mistake) return std::nullopt;
  return fmt::format("command line: '{}': {}", shown(text), *mistake);
}

std::vector<std::string> SettingsTree::read_yaml(std::string_view text,
                                                 const std::string& file_name) {
  if (text.size() > kLargestFile)
    return {
        fmt::format("{}: {} is too large for a settings file (at most {}); is this the right "
                    "file?",
                    file_name, human_bytes(static_cast<double>(text.size())),
                    human_bytes(static_cast<double>(kLargestFile)))};
  FileReader reader(*this, file_name);
  std::optional<Mistake> mistake;
  const GivenValue root = parse_yaml(text, mistake);
  if (mistake)
    reader.add(*mistake);
  else
    reader.read_document(root);
  std::vector<std::string> mistakes = reader.take_mistakes();
  if (mistakes.size() >= kMostMistakes)
    mistakes.push_back(fmt::format("{}: too many mistakes, the rest is not shown", file_name));
  return mistakes;
}

}  // namespace sfumato
