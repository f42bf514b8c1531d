#include "sfumato/config/setting.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <type_traits>

#include "sfumato/config/settings_tree.h"
#include "sfumato/core/error.h"
#include "sfumato/core/text.h"
#include "yaml_text.h"

namespace sfumato {
namespace {

using Kind = GivenValue::Kind;
using Integers = std::vector<std::int64_t>;
using Texts = std::vector<std::string>;

template <typename T>
constexpr bool kIsList = std::is_same_v<T, Integers> || std::is_same_v<T, Texts>;

// The type's name in messages and documentation.
std::string type_of(bool) { return "true or false"; }
std::string type_of(std::int64_t) { return "integer"; }
std::string type_of(double) { return "real number"; }
std::string type_of(const std::optional<double>&) { return "real number or null"; }
std::string type_of(const std::string&) { return "text"; }
std::string type_of(const Integers&) { return "list of integers"; }
std::string type_of(const Texts&) { return "list of texts"; }

// One line of YAML. fmt prints the shortest digits that give the same double back.
std::string to_yaml(bool value) { return value ? "true" : "false"; }
std::string to_yaml(std::int64_t value) { return fmt::format("{}", value); }
std::string to_yaml(double value) { return fmt::format("{}", value); }
std::string to_yaml(const std::optional<double>& value) { return value ? to_yaml(*value) : "null"; }
std::string to_yaml(const std::string& value) { return yaml_quote(value); }
template <typename T>
std::string to_yaml(const std::vector<T>& values) {
  Texts items;
  for (const T& value : values) items.push_back(to_yaml(value));
  return fmt::format("[{}]", fmt::join(items, ", "));
}

/// In YAML's form for one line.
std::string to_yaml(const GivenValue& value) {
  Texts items;
  switch (value.kind) {
    case Kind::kNull: return "null";
    case Kind::kText: return value.quoted ? yaml_quote(value.text) : value.text;
    case Kind::kList:
      for (const GivenValue& item : value.items) items.push_back(to_yaml(item));
      return fmt::format("[{}]", fmt::join(items, ", "));
    case Kind::kMap: break;
  }
  for (std::size_t i = 0; i + 1 < value.items.size(); i += 2)
    items.push_back(to_yaml(value.items[i]) + ": " + to_yaml(value.items[i + 1]));
  return fmt::format("{{{}}}", fmt::join(items, ", "));
}

std::string got(const GivenValue& given) {
  switch (given.kind) {
    case Kind::kNull: return "nothing";
    case Kind::kList: return "a list";
    case Kind::kMap: return "a map";
    case Kind::kText: break;
  }
  if (given.quoted) return fmt::format("the quoted text \"{}\"", shown(given.text));
  return fmt::format("'{}'", shown(given.text));
}

Mistake at(const GivenValue& given, std::string message) {
  return {given.line, given.column, std::move(message)};
}

Mistake ill_typed(const GivenValue& given, const std::string& expected) {
  return at(given, fmt::format("expected {}, got {}", expected, got(given)));
}

/// Ranges are intervals of doubles; every bound in use is far below 2^53, where the conversion of
/// an integer could lose a unit.
template <typename Number>
std::optional<Mistake> check_number(const GivenValue& given, const Range& range, Number value) {
  if (auto message = range.mistake(static_cast<double>(value)))
    return at(given, std::move(*message));
  return std::nullopt;
}

// read(): given -> value, or the mistake. `out` is untouched on a mistake.
std::optional<Mistake> read(const GivenValue& given, const Range&, bool& out) {
  const bool plain = given.kind == Kind::kText && !given.quoted;
  if (!plain || (given.text != "true" && given.text != "false"))
    return ill_typed(given, "true or false");
  out = given.text == "true";
  return std::nullopt;
}

std::optional<Mistake> read(const GivenValue& given, const Range& range, std::int64_t& out) {
  const bool plain = given.kind == Kind::kText && !given.quoted;
  const std::optional<std::int64_t> value = plain ? parse_int64(given.text) : std::nullopt;
  if (!value) return ill_typed(given, "an integer");
  if (auto mistake = check_number(given, range, *value)) return mistake;
  out = *value;
  return std::nullopt;
}

std::optional<Mistake> read(const GivenValue& given, const Range& range, double& out) {
  const bool plain = given.kind == Kind::kText && !given.quoted;
  const std::optional<double> value = plain ? parse_double(given.text) : std::nullopt;
  if (!value) return ill_typed(given, "a real number");
  if (auto mistake = check_number(given, range, *value)) return mistake;
  out = *value;
  return std::nullopt;
}

std::optional<Mistake> read(const GivenValue& given, const Range& range,
                            std::optional<double>& out) {
  const bool written_null =
      given.kind == Kind::kText && !given.quoted && (given.text == "null" || given.text == "~");
  if (given.kind == Kind::kNull || written_null) {
    out = std::nullopt;
    return std::nullopt;
  }
  double value = 0;
  if (auto mistake = read(given, range, value)) return mistake;
  out = value;
  return std::nullopt;
}

std::optional<Mistake> read(const GivenValue& given, const Range& range, std::string& out) {
  if (given.kind == Kind::kNull) return ill_typed(given, "text (\"\" for none)");
  if (given.kind != Kind::kText) return ill_typed(given, "text");
  if (auto message = range.mistake(std::string_view(given.text)))
    return at(given, std::move(*message));
  out = given.text;
  return std::nullopt;
}

template <typename T>
std::optional<Mistake> read(const GivenValue& given, const Range& range, std::vector<T>& out) {
  if (given.kind != Kind::kList)
    return ill_typed(given, fmt::format("a {} such as [a, b]", type_of(out)));
  if (range.non_empty && given.items.empty()) return at(given, "must not be empty");
  std::vector<T> values(given.items.size());
  for (std::size_t i = 0; i < values.size(); ++i)
    if (auto mistake = read(given.items[i], range, values[i])) return mistake;
  out = std::move(values);
  return std::nullopt;
}

GivenValue text_value(std::string_view text, bool quoted) {
  GivenValue value;
  value.kind = Kind::kText;
  value.text = text;
  value.quoted = quoted;
  return value;
}

// A value as if it had been written, so that programs pass the same checks as files.
template <typename T>
GivenValue to_given(const T& value) {
  return text_value(to_yaml(value), false);
}
GivenValue to_given(const std::string& value) { return text_value(value, true); }
template <typename T>
GivenValue to_given(const std::vector<T>& values) {
  GivenValue list;
  list.kind = Kind::kList;
  for (const T& value : values) list.items.push_back(to_given(value));
  return list;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

/// `a,b`, `[a, b]` or `[]`; a comma inside quotes belongs to its element.
GivenValue split_list(std::string_view text) {
  GivenValue list;
  list.kind = Kind::kList;
  text = trimmed(text);
  if (text.size() >= 2 && text.front() == '[' && text.back() == ']')
    text = trimmed(text.substr(1, text.size() - 2));
  if (text.empty()) return list;
  for (bool more = true; more;) {
    char quote = 0;
    std::size_t end = 0;
    for (; end < text.size() && (quote != 0 || text[end] != ','); ++end) {
      if (quote != 0 ? text[end] == quote : text[end] == '"' || text[end] == '\'')
        quote = quote != 0 ? char{0} : text[end];
    }
    std::string_view item = trimmed(text.substr(0, end));
    const bool quoted = item.size() >= 2 && (item.front() == '"' || item.front() == '\'') &&
                        item.back() == item.front();
    if (quoted) item = item.substr(1, item.size() - 2);
    list.items.push_back(text_value(item, quoted));
    more = end < text.size();
    text.remove_prefix(more ? end + 1 : end);
  }
  return list;
}

}  // namespace

std::string place(const SettingBase& setting) {
  return fmt::format("{} ({})", setting.key(), setting.provenance());
}

SettingBase::SettingBase(Section* section, std::string name, Range range, std::string unit,
                         std::string help)
    : section_(section),
      name_(std::move(name)),
      range_(std::move(range)),
      unit_(std::move(unit)),
      help_(std::move(help)) {
  section->settings_.push_back(this);
}

std::string SettingBase::key() const { return section_->section_name() + "." + name_; }

template <typename T>
void Setting<T>::set(const T& value, const std::string& provenance) {
  if (const std::optional<Mistake> mistake = assign(to_given(value), provenance))
    throw UsageError(fmt::format("{}: {}", key(), mistake->message));
}

template <typename T>
std::string Setting<T>::type_name() const {
  return type_of(default_);
}

template <typename T>
std::string Setting<T>::value_yaml() const {
  return to_yaml(value_);
}

template <typename T>
std::string Setting<T>::default_yaml() const {
  return to_yaml(default_);
}

template <typename T>
std::optional<Mistake> Setting<T>::assign(const GivenValue& given, const std::string& provenance) {
  std::optional<Mistake> mistake = read(given, range_, value_);
  if (!mistake) provenance_ = provenance;
  return mistake;
}

template <typename T>
std::optional<Mistake> Setting<T>::assign_text(std::string_view text,
                                               const std::string& provenance) {
  return assign(kIsList<T> ? split_list(text) : text_value(text, false), provenance);
}

std::string FreeSetting::value_yaml() const { return to_yaml(value_); }

std::optional<Mistake> FreeSetting::assign(const GivenValue& given, const std::string& provenance) {
  value_ = given;
  provenance_ = provenance;
  return std::nullopt;
}

std::optional<Mistake> FreeSetting::assign_text(std::string_view, const std::string&) {
  return Mistake{0, 0, fmt::format("{} ({}) is written in a file", key(), form_)};
}

template class Setting<bool>;
template class Setting<std::int64_t>;
template class Setting<double>;
template class Setting<std::optional<double>>;
template class Setting<std::string>;
template class Setting<std::vector<std::int64_t>>;
template class Setting<std::vector<std::string>>;

}  // namespace sfumato
