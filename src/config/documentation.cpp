// The texts that are made from the declarations: resolved files, configs/base.yaml, --help.
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <iterator>
#include <utility>
#include <vector>

#include "sfumato/config/config.h"
#include "sfumato/config/public_settings.h"
#include "sfumato/config/settings_help.h"
#include "yaml_text.h"

namespace sfumato {
namespace {

constexpr std::size_t kWidth = 98;

/// Columns on a terminal, counting a UTF-8 sequence as one.
std::size_t columns(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

/// Breaks at spaces so that no line is longer than kWidth columns; each line begins with `prefix`.
std::string wrapped(std::string_view text, const std::string& prefix) {
  std::string out;
  std::string line = prefix;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    const std::string_view word = text.substr(0, end);
    if (line != prefix && columns(line) + 1 + columns(word) > kWidth) {
      out += line + '\n';
      line = prefix;
    }
    if (line != prefix) line += ' ';
    line += word;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out + line + '\n';
}

/// "integer, pixels; between 4 and 1024; default 32"
std::string facts(const SettingBase& setting) {
  std::string text = setting.type_name();
  if (!setting.unit().empty()) text += ", " + setting.unit();
  const std::string range = setting.range().describe();
  if (!range.empty()) text += "; " + range;
  return text + "; default " + setting.default_yaml();
}

/// Opens sections one after the other, indented: the parts of a dotted name that the last section
/// opened as well are not repeated. Needs inner sections to follow their outer one.
class SectionHeadings {
 public:
  /// Writes `before_last` (a comment, say) just before the section's own line; returns the
  /// indentation of what is inside.
  std::string open(std::string& out, const std::string& name,
                   const std::function<std::string(const std::string& indent)>& before_last) {
    std::vector<std::string> parts;
    for (std::size_t begin = 0; begin <= name.size();) {
      const std::size_t end = std::min(name.find('.', begin), name.size());
      parts.push_back(name.substr(begin, end - begin));
      begin = end + 1;
    }
    std::size_t same = 0;
    while (same + 1 < parts.size() && same < open_.size() && open_[same] == parts[same]) ++same;
    for (std::size_t i = same; i < parts.size(); ++i) {
      const std::string indent(2 * i, ' ');
      if (i + 1 == parts.size()) out += before_last(indent);
      out += fmt::format("{}{}:\n", indent, parts[i]);
    }
    open_ = std::move(parts);
    return std::string(2 * open_.size(), ' ');
  }

 private:
  std::vector<std::string> open_;
};

/// Where a sentence may end early: at a colon or semicolon outside of brackets, after enough words.
std::size_t early_end(const std::string& sentence) {
  constexpr std::size_t kLeast = 25;
  int brackets = 0;
  for (std::size_t i = 0; i < sentence.size(); ++i) {
    if (sentence[i] == '(') ++brackets;
    if (sentence[i] == ')') --brackets;
    const bool stops = sentence[i] == ':' || sentence[i] == ';';
    if (stops && brackets == 0 && i >= kLeast) return i;
  }
  return sentence.npos;
}

/// The first sentence without its full stop; a long one ends early.
std::string first_sentence(const std::string& help) {
  constexpr std::size_t kLong = 90;
  std::string sentence = help.substr(0, help.find(". "));
  if (columns(sentence) > kLong) sentence = sentence.substr(0, early_end(sentence));
  if (sentence.ends_with('.')) sentence.pop_back();
  return sentence;
}

/// Numbers, switches and words of a fixed list say nothing of anybody's files. Of free texts, which
/// may name files, people or places, only these leave.
bool is_public(const SettingBase& setting) {
  constexpr std::string_view kPublicTexts[] = {"mechanism.declared", "model.family",
                                               "model.trainable"};
  const bool free_text = setting.type_name().find("text") != std::string::npos;
  return !free_text || !setting.range().choices.empty() ||
         std::ranges::find(kPublicTexts, setting.key()) != std::end(kPublicTexts);
}

/// Whether a setting has a say where model.family is `family`.
bool concerns(const SettingBase& setting, const Section& section, const std::string& family) {
  constexpr std::string_view kFamilies[] = {"diffusion", "gan"};  // sections of these names
  const std::string& name = section.section_name();
  if (name == "sample" && family == "gan")
    return std::ranges::find(kSampleOfEveryFamily, setting.name()) !=
           std::end(kSampleOfEveryFamily);
  return name == family || std::ranges::find(kFamilies, name) == std::end(kFamilies);
}

}  // namespace

std::string SettingsTree::resolved_yaml() const {
  std::string out;
  SectionHeadings headings;
  for (const Section* section : sections_) {
    const std::string indent =
        headings.open(out, section->section_name(), [](const std::string&) { return ""; });
    for (const SettingBase* setting : section->settings()) {
      std::string provenance = setting->provenance();
      // A file name may hold anything; a line break in it would end the comment.
      std::replace_if(
          provenance.begin(), provenance.end(),
          [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; }, '?');
      if (find_unprintable(provenance)) provenance = shown(provenance);
      out += fmt::format("{}{}: {}  # from {}\n", indent, setting->name(), setting->value_yaml(),
                         provenance);
    }
  }
  return out;
}

SettingValues given_settings(const SettingsTree& tree) {
  SettingValues values;
  for (const Section* section : tree.sections())
    for (const SettingBase* setting : section->settings())
      if (!setting->is_default()) values[setting->key()] = setting->value_yaml();
  return values;
}

std::string settings_yaml(const SettingsTree& tree, const SettingValues& values) {
  std::string out;
  SectionHeadings headings;
  for (const Section* section : tree.sections()) {
    std::string lines, indent;
    for (const SettingBase* setting : section->settings()) {
      const auto value = values.find(setting->key());
      if (value == values.end()) continue;
      if (lines.empty())
        indent = headings.open(out, section->section_name(), [](const std::string&) { return ""; });
      lines += fmt::format("{}{}: {}\n", indent, setting->name(), value->second);
    }
    out += lines;
  }
  return out;
}

std::string public_settings_yaml(const SettingsTree& tree) {
  std::string out;
  SectionHeadings headings;
  const auto* family = dynamic_cast<const Setting<std::string>*>(tree.find("model.family"));
  for (const Section* section : tree.sections()) {
    std::vector<const SettingBase*> settings;
    for (const SettingBase* setting : section->settings())
      if (is_public(*setting) && (!family || concerns(*setting, *section, (*family)())))
        settings.push_back(setting);
    if (settings.empty()) continue;
    const std::string indent =
        headings.open(out, section->section_name(), [](const std::string&) { return ""; });
    for (const SettingBase* setting : settings)
      out += fmt::format("{}{}: {}\n", indent, setting->name(), setting->value_yaml());
  }
  return out;
}

std::string base_yaml(const SettingsTree& tree) {
  std::string out =
      "# Every setting with its help, type, unit, range and default. A configuration needs only\n"
      "# what differs from the defaults; the command line overrides it with "
      "section.setting=value.\n"
      "# This file is generated from the declarations in include/sfumato/config/sections.h.\n";
  SectionHeadings headings;
  for (const Section* section : tree.sections()) {
    out += '\n';
    const std::string indent = headings.open(
        out, section->section_name(),
        [&](const std::string& outer) { return wrapped(section->section_help(), outer + "# "); });
    const char* separator = "";
    for (const SettingBase* setting : section->settings()) {
      out += separator;
      out += wrapped(setting->help(), indent + "# ");
      out += wrapped(fmt::format("({})", facts(*setting)), indent + "# ");
      out += fmt::format("{}{}: {}\n", indent, setting->name(), setting->value_yaml());
      separator = "\n";
    }
  }
  return out;
}

std::string documented_yaml() { return base_yaml(Config{}); }

std::string settings_help() { return settings_help_of({}); }

std::span<const std::string_view> sections_read_by(std::string_view subcommand) {
  static constexpr std::string_view kPrepare[] = {"data", "model", "performance"};
  static constexpr std::string_view kSample[] = {"sample", "performance"};
  static constexpr std::string_view kTrain[] = {"run",       "data",       "model",     "privacy",
                                                "mechanism", "gan",        "diffusion", "optimizer",
                                                "warmup",    "performance"};
  if (subcommand == "prepare") return kPrepare;
  if (subcommand == "sample") return kSample;
  if (subcommand == "train" || subcommand == "plan" || subcommand == "doctor") return kTrain;
  return {};
}

std::string settings_help_of(std::span<const std::string_view> sections) {
  constexpr std::size_t kKeyColumns = 44;
  const Config config;
  std::string out = "Settings (section.setting=default); configs/base.yaml says more about each:\n";
  std::string others;
  for (const Section* section : config.sections()) {
    const std::string& name = section->section_name();
    const bool read = sections.empty() || std::ranges::any_of(sections, [&](std::string_view each) {
                        return name == each || (name.starts_with(each) && name[each.size()] == '.');
                      });
    if (!read) {
      others += (others.empty() ? "" : ", ") + name;
      continue;
    }
    out +=
        fmt::format("\n{}: {}\n", section->section_name(), first_sentence(section->section_help()));
    for (const SettingBase* setting : section->settings()) {
      const std::string key = fmt::format("  {}={}", setting->key(), setting->default_yaml());
      out += key;
      out.append(kKeyColumns > columns(key) ? kKeyColumns - columns(key) : 0, ' ');
      out += "  " + first_sentence(setting->help());
      if (!setting->range().choices.empty()) out += " (" + setting->range().describe() + ")";
      out += '\n';
    }
  }
  if (!others.empty()) out += fmt::format("\nFor other subcommands (--help-all): {}\n", others);
  return out;
}

}  // namespace sfumato
