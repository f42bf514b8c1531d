#pragma once
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sfumato/config/setting.h"

namespace sfumato {

class SettingsTree;

/// A named group of settings. Derive, and declare the settings as members. A name with dots,
/// "mechanism.stages", is a section inside another: in YAML it is a map among the other's settings.
class Section {
 public:
  Section(SettingsTree* tree, std::string name, std::string help);
  virtual ~Section() = default;
  Section(const Section&) = delete;
  Section& operator=(const Section&) = delete;

  // Not name() and help(): a section may well have settings of these names.
  const std::string& section_name() const { return section_name_; }
  const std::string& section_help() const { return section_help_; }
  std::span<SettingBase* const> settings() const { return settings_; }
  /// nullptr if there is none.
  SettingBase* find_setting(std::string_view name) const;

 private:
  friend class SettingBase;
  std::string section_name_;
  std::string section_help_;
  std::vector<SettingBase*> settings_;
};

/// The sections of a program and everything that is derived from their declarations: reading YAML
/// and overrides, and writing resolved values. Sections are members of the derived class and
/// register themselves, hence no copies.
class SettingsTree {
 public:
  SettingsTree() = default;
  SettingsTree(const SettingsTree&) = delete;
  SettingsTree& operator=(const SettingsTree&) = delete;

  std::span<Section* const> sections() const { return sections_; }
  /// nullptr if there is none.
  Section* find_section(std::string_view name) const;
  /// Whether a section is `name` or lies inside it.
  bool has_section_at(std::string_view name) const;
  /// By "section.name"; nullptr if there is none.
  SettingBase* find(std::string_view key) const;
  /// Every "section.name", in the order of declaration.
  std::vector<std::string> keys() const;

  /// Why `key` is no "section.name" of this tree, with what may be meant: "unknown section 'a'; did
  /// you mean 'b'?". Nothing if it is one.
  std::optional<std::string> key_mistake(std::string_view key) const;
  /// Takes one "section.name=value", or says what is wrong with it: "command line: 'a.b=c': ...".
  std::optional<std::string> try_override(std::string_view text);
  /// Reads a YAML document (at most 256 KiB, no anchors, tags or second document) and takes what
  /// is right in it. Returns every mistake as "file_name:line:column: message", in file order.
  std::vector<std::string> read_yaml(std::string_view text, const std::string& file_name);

  /// Every key with its value and "# from <provenance>"; reads back to the same values.
  std::string resolved_yaml() const;

 private:
  friend class Section;
  std::vector<Section*> sections_;
};

/// Settings as one line of YAML each, by key.
using SettingValues = std::map<std::string, std::string>;
/// Those that are not left at their defaults, as somebody gave them.
SettingValues given_settings(const SettingsTree& tree);
/// A document that sets these and leaves all others alone, in the order of `tree`. All keys are
/// its.
std::string settings_yaml(const SettingsTree& tree, const SettingValues& values);

/// Every key with its value, and its help, type, unit, range and default as comments.
std::string base_yaml(const SettingsTree& tree);

}  // namespace sfumato
