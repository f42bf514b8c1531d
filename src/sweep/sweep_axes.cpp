#include "sweep/sweep_axes.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "sfumato/core/printable.h"

namespace sfumato {
namespace {

using Kind = GivenValue::Kind;

/// Whether a setting decides what is promised or to whose data: where results of the runs are
/// compared under one promise, all have the same.
bool decides_promise(std::string_view key) {
  constexpr std::string_view kOthers[] = {"privacy.enabled", "data.users", "data.records_per_user",
                                          "model.init", "model.init_is_public"};
  return key.starts_with("mechanism.") || std::ranges::find(kOthers, key) != std::end(kOthers);
}

/// Reads what a sweep varies, with places for all that is wrong.
class AxisReader {
 public:
  AxisReader(SweepFile& file, std::vector<std::string>& mistakes)
      : file_(file), mistakes_(mistakes) {}

  void read() {
    const SweepSettings& sweep = file_.settings->sweep;
    read_vary(sweep.vary());
    read_zip(sweep.zip());
    read_exclude(sweep.exclude());
  }

 private:
  void add(const GivenValue& at, const std::string& message) {
    mistakes_.push_back(
        fmt::format("{}:{}:{}: {}", file_.path.string(), at.line, at.column, message));
  }

  /// Calls `visit(key, value)` for what a map holds; says what is wrong with what is none.
  template <typename Visit>
  void for_each(const GivenValue& map, const std::string& what, const Visit& visit) {
    if (map.kind == Kind::kNull) return;
    if (map.kind != Kind::kMap)
      return add(map, fmt::format("{} of settings, such as "
                                  "optimizer.learning_rate: ...",
                                  what));
    for (std::size_t i = 0; i + 1 < map.items.size(); i += 2) {
      const GivenValue& key = map.items[i];
      if (key.kind != Kind::kText)
        add(key, "a key must be the name of a setting");
      else
        visit(key, map.items[i + 1]);
    }
  }

  template <typename Visit>
  void for_each_group(const GivenValue& list, const std::string& name, const Visit& visit) {
    if (list.kind == Kind::kNull) return;
    if (list.kind != Kind::kList) return add(list, fmt::format("sweep.{} is a list of maps", name));
    for (const GivenValue& group : list.items) visit(group);
  }

  bool may_vary(const GivenValue& key) {
    const std::string& name = key.text;
    if (const auto mistake = scratch_.key_mistake(name)) {
      add(key, fmt::format("cannot vary '{}': {}", printable(name),
                           name.find('.') == std::string::npos
                               ? "it is no section.setting" + after_semicolon(*mistake)
                               : *mistake));
      return false;
    }
    const SweepPurpose purpose = file_.purpose();
    if (name == "run.dir" || name == "run.sweep")
      add(key, fmt::format("{} cannot vary: the sweep gives every run a folder", name));
    else if (name == "data.store")
      add(key, "data.store cannot vary: a sweep is about one record store; make one for each");
    else if (name == "run.seed" && file_.settings->sweep.repeat() > 1)
      add(key, "run.seed cannot vary beside sweep.repeat, which sets it; leave one of them out");
    else if (name == "mechanism.candidates" || name.starts_with("mechanism.selection."))
      add(key, fmt::format("{} cannot vary: the purpose of the sweep decides it", name));
    else if (decides_promise(name) && purpose != SweepPurpose::kPublicTuning &&
             purpose != SweepPurpose::kAblation)
      add(key, fmt::format("{} cannot vary where the purpose is {}: all runs must make the same "
                           "promise to the same data; set it in the base, or take the purpose "
                           "public_tuning or ablation",
                           name, to_string(purpose)));
    else
      return true;
    return false;
  }

  static std::string after_semicolon(const std::string& mistake) {
    const std::size_t at = mistake.find(';');
    return at == std::string::npos ? std::string{} : mistake.substr(at);
  }

  /// The value in the form of its setting; empty with a mistake.
  std::string value_of(const GivenValue& key, const GivenValue& value) {
    SettingBase* setting = scratch_.find(key.text);
    if (const auto mistake = setting->assign(value, "sweep")) {
      const GivenValue& at = mistake->line > 0 ? place_of(*mistake) : value;
      add(at, fmt::format("{}: {}", key.text, mistake->message));
      return {};
    }
    return setting->value_yaml();
  }

  const GivenValue& place_of(const Mistake& mistake) {
    place_.line = mistake.line;
    place_.column = mistake.column;
    return place_;
  }

  /// All values of a setting, each once.
  std::vector<std::string> values_of(const GivenValue& key, const GivenValue& list) {
    std::vector<std::string> values;
    if (list.kind != Kind::kList || list.items.empty()) {
      add(list.line > 0 ? list : key,
          fmt::format("{}: expected a list of values, such as [a, b]", key.text));
      return values;
    }
    for (const GivenValue& item : list.items) {
      const std::string value = value_of(key, item);
      if (!value.empty()) values.push_back(value);
    }
    return values;
  }

  bool is_new(const GivenValue& key) {
    const auto [first, fresh] = lines_.emplace(key.text, key.line);
    if (!fresh)
      add(key, fmt::format("{} varies already (line {}); remove one of the two", key.text,
                           first->second));
    return fresh;
  }

  void read_vary(const GivenValue& vary) {
    for_each(vary, "sweep.vary is a map", [&](const GivenValue& key, const GivenValue& list) {
      if (!may_vary(key) || !is_new(key)) return;
      SweepAxis axis;
      for (const std::string& value : values_of(key, list)) {
        const std::vector<Assignment> point{{key.text, value}};
        if (std::ranges::find(axis.points, point) != axis.points.end())
          add(list, fmt::format("{} has the value {} twice", key.text, value));
        axis.points.push_back(point);
      }
      if (!axis.points.empty()) file_.axes.push_back(axis);
    });
  }

  void read_zip(const GivenValue& zip) {
    for_each_group(zip, "zip", [&](const GivenValue& group) {
      SweepAxis axis;
      bool first = true;
      for_each(group, "a group of sweep.zip is a map",
               [&](const GivenValue& key, const GivenValue& list) {
                 if (!may_vary(key) || !is_new(key)) return;
                 const std::vector<std::string> values = values_of(key, list);
                 if (first) axis.points.resize(values.size());
                 first = false;
                 if (values.size() != axis.points.size())
                   return add(key, fmt::format("{} has {} values, the first of its group {}: what "
                                               "moves together has equally many",
                                               key.text, values.size(), axis.points.size()));
                 for (std::size_t i = 0; i < values.size(); ++i)
                   axis.points[i].push_back({key.text, values[i]});
               });
      if (!axis.points.empty()) file_.axes.push_back(axis);
    });
  }

  bool varies(const Assignment& assignment) const {
    return std::ranges::any_of(file_.axes, [&](const SweepAxis& axis) {
      return std::ranges::any_of(axis.points, [&](const auto& point) {
        return std::ranges::find(point, assignment) != point.end();
      });
    });
  }

  void read_exclude(const GivenValue& exclude) {
    for_each_group(exclude, "exclude", [&](const GivenValue& group) {
      std::vector<Assignment> assignments;
      for_each(group, "what sweep.exclude leaves out is a map",
               [&](const GivenValue& key, const GivenValue& value) {
                 if (!lines_.contains(key.text))
                   return add(key, fmt::format("'{}' does not vary, so nothing can be left out by "
                                               "it",
                                               printable(key.text)));
                 const Assignment assignment{key.text, value_of(key, value)};
                 if (assignment.value.empty()) return;
                 if (!varies(assignment))
                   return add(value, fmt::format("{} never is {}", key.text, assignment.value));
                 assignments.push_back(assignment);
               });
      if (!assignments.empty()) file_.exclude.push_back(assignments);
    });
  }

  SweepFile& file_;
  std::vector<std::string>& mistakes_;
  Config scratch_;                    ///< whose settings judge values
  std::map<std::string, int> lines_;  ///< where each setting that varies was first
  GivenValue place_;
};

}  // namespace

void read_axes(SweepFile& file, std::vector<std::string>& mistakes) {
  AxisReader(file, mistakes).read();
}

}  // namespace sfumato
