#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sfumato/config/range.h"
#include "sfumato/core/enum_names.h"

namespace sfumato {

class Section;

/// A value as somebody wrote it, before the setting's type is known. Positions count from 1.
struct GivenValue {
  enum class Kind { kNull, kText, kList, kMap };
  Kind kind = Kind::kNull;
  std::string text;     ///< kText only
  bool quoted = false;  ///< kText: written in quotes, hence no number, bool or null
  int line = 0;
  int column = 0;
  std::vector<GivenValue> items;  ///< kList: elements; kMap: key, value, key, value, ...
};

/// Why a value was refused, and where in its file (0, 0 if it came from the command line).
struct Mistake {
  int line = 0;
  int column = 0;
  std::string message;
};

/// What all settings share, whatever their type. Registers itself in its section.
class SettingBase {
 public:
  SettingBase(Section* section, std::string name, Range range, std::string unit, std::string help);
  virtual ~SettingBase() = default;
  SettingBase(const SettingBase&) = delete;
  SettingBase& operator=(const SettingBase&) = delete;

  const std::string& name() const { return name_; }
  /// "section.name", as overrides and messages call it.
  std::string key() const;
  const Range& range() const { return range_; }
  const std::string& unit() const { return unit_; }
  const std::string& help() const { return help_; }
  /// Where the value comes from: "default", "file.yaml:12", "command line".
  const std::string& provenance() const { return provenance_; }
  bool is_default() const { return provenance_ == "default"; }

  /// "integer", "real number or null", ...
  virtual std::string type_name() const = 0;
  /// As one line of YAML; reading it back gives the same value, doubles bit for bit.
  virtual std::string value_yaml() const = 0;
  virtual std::string default_yaml() const = 0;
  /// Takes the value, or leaves the old one and says what is wrong.
  virtual std::optional<Mistake> assign(const GivenValue& given, const std::string& provenance) = 0;
  /// As assign, from the right-hand side of an override (lists: `a,b` or `[a, "b,c"]`).
  virtual std::optional<Mistake> assign_text(std::string_view text,
                                             const std::string& provenance) = 0;

 protected:
  Section* section_;
  std::string name_;
  Range range_;
  std::string unit_;
  std::string help_;
  std::string provenance_ = "default";
};

/// "key (where it was set)", for messages.
std::string place(const SettingBase& setting);

/// One setting: the only place where its name, default, range, unit and help are written.
///
///   struct OptimizerSettings : Section {
///     Setting<double> learning_rate{this, "learning_rate", 1e-3, at_least(0), "", "Peak rate."};
///   };
///   const double rate = config.optimizer.learning_rate();
///
/// T is bool, int64_t, double, std::optional<double> (null = unset), std::string,
/// std::vector<int64_t>, std::vector<std::string> or an enumeration with a table of names (below).
template <typename T>
class Setting : public SettingBase {
 public:
  Setting(Section* section, std::string name, T default_value, Range range, std::string unit,
          std::string help)
      : SettingBase(section, std::move(name), std::move(range), std::move(unit), std::move(help)),
        default_(default_value),
        value_(std::move(default_value)) {}

  const T& operator()() const { return value_; }
  /// For programs; the same checks as for a file, UsageError if one fails.
  void set(const T& value, const std::string& provenance = "set by the program");

  std::string type_name() const override;
  std::string value_yaml() const override;
  std::string default_yaml() const override;
  std::optional<Mistake> assign(const GivenValue& given, const std::string& provenance) override;
  std::optional<Mistake> assign_text(std::string_view text, const std::string& provenance) override;

 private:
  T default_;
  T value_;
};

extern template class Setting<bool>;
extern template class Setting<std::int64_t>;
extern template class Setting<double>;
extern template class Setting<std::optional<double>>;
extern template class Setting<std::string>;
extern template class Setting<std::vector<std::int64_t>>;
extern template class Setting<std::vector<std::string>>;

/// A choice: in files and overrides a text that is one of the table's names, for programs the
/// enumerator. Neither names nor range are written where it is declared:
///
///   Setting<Clipping> clipping{this, "clipping", Clipping::kFlat, "How gradients are bounded."};
template <NamedEnum E>
class Setting<E> : public Setting<std::string> {
 public:
  Setting(Section* section, std::string name, E default_value, std::string help)
      : Setting<std::string>(section, std::move(name), to_string(default_value),
                             one_of(names_of<E>(), refused_names_of<E>()), "", std::move(help)) {}

  E operator()() const { return parse_enum<E>(Setting<std::string>::operator()()); }
  void set(E value, const std::string& provenance = "set by the program") {
    Setting<std::string>::set(to_string(value), provenance);
  }
};

/// Content that no type describes, such as values for settings that are named beside it: kept as it
/// was written, with its places, for a reader that knows what it should be. Files only.
class FreeSetting : public SettingBase {
 public:
  FreeSetting(Section* section, std::string name, std::string form, std::string help)
      : SettingBase(section, std::move(name), any_value(), "", std::move(help)),
        form_(std::move(form)) {}

  /// Null where nothing was written.
  const GivenValue& operator()() const { return value_; }

  std::string type_name() const override { return form_; }
  std::string value_yaml() const override;
  std::string default_yaml() const override { return "null"; }
  std::optional<Mistake> assign(const GivenValue& given, const std::string& provenance) override;
  std::optional<Mistake> assign_text(std::string_view text, const std::string& provenance) override;

 private:
  std::string form_;
  GivenValue value_;
};

}  // namespace sfumato
