#include "class_names.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "sfumato/core/class_name.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/core/printable.h"
#include "sfumato/core/text.h"

namespace sfumato {
namespace {

using Names = std::vector<std::string>;

// Messages name this many classes of a long list.
constexpr std::size_t kShownNames = 8;

constexpr const char* kAnyClass = "*";

bool is_number(const std::string& name) {
  return !name.empty() && name.find_first_not_of("0123456789") == std::string::npos;
}

/// By value, of any length; "07" and "7" are equal.
bool is_smaller_number(std::string_view a, std::string_view b) {
  const auto digits = [](std::string_view text) {
    text.remove_prefix(std::min(text.find_first_not_of('0'), text.size()));
    return text;
  };
  const std::string_view x = digits(a), y = digits(b);
  return x.size() != y.size() ? x.size() < y.size() : x < y;
}

std::string quoted_list(const Names& names, std::size_t most) {
  std::string text;
  for (std::size_t i = 0; i < std::min(names.size(), most); ++i)
    text += fmt::format("{}'{}'", i == 0 ? "" : ", ", printable(names[i]));
  if (names.size() > most) text += fmt::format(" and {} more", names.size() - most);
  return text;
}

/// What a corpus makes a folder of, and a card a line.
void check_names(const Names& names) {
  Names sorted = names;
  std::ranges::sort(sorted);
  if (const auto twice = std::ranges::adjacent_find(sorted); twice != sorted.end())
    throw UsageError(fmt::format("data.class_names has '{}' twice", printable(*twice)));
  for (const std::string& name : names)
    if (const std::string defect = class_name_defect(name); !defect.empty())
      throw UsageError(fmt::format("class name '{}' {}", printable(name), defect));
}

void check_is_text(const PrepareOptions& options, const Names& found) {
  for (const std::string& name : found)
    if (const std::string defect = class_name_defect(name); !defect.empty())
      throw DataError(
          fmt::format("class '{}' of '{}' cannot be kept: its name {}; rename it in the source",
                      printable(name), printable(options.source.string()), defect));
}

/// As a list of a YAML file: in quotes, where nothing is read otherwise.
std::string yaml_list(const Names& names) {
  Names quoted;
  for (const std::string& name : names) {
    std::string text;
    for (const char c : name) {
      if (c == '"' || c == '\\') text += '\\';
      text += c;
    }
    quoted.push_back('"' + text + '"');
  }
  return fmt::format("[{}]", fmt::join(quoted, ", "));
}

std::string yaml_line(const Names& names) { return "class_names: " + yaml_list(names); }

[[noreturn]] void ask_for_names(const PrepareOptions& options, const Names& found) {
  std::string count;
  if (std::ssize(found) != options.num_classes)
    count = fmt::format(
        "\nThese are {} names, and data.num_classes is {}: list all classes that there are, also "
        "those of which no image is here, and set data.num_classes to their number or leave it "
        "out.",
        found.size(), options.num_classes);
  throw UsageError(fmt::format(
      "'{}' names its classes, and the configuration does not say which names are public. Labels "
      "are positions in a public list: if they followed what the source holds, one image of a new "
      "class would give all others another label. The names found, as a line for section 'data' "
      "of the configuration (the first is label 0):\n\n  {}\n{}\n"
      "A list becomes public with the results. Before you add it: a name that only the private "
      "data knows must not be in it, and classes that the public knows must be, with images or "
      "without. If the names above are such a list, `sfumato prepare --config FILE "
      "--accept-class-names` takes "
      "them as they are, and the privacy card will say so.",
      printable(options.source.string()), yaml_line(found), count));
}

/// The name of each label, and where the names come from.
void choose_names(const PrepareOptions& options, const ClassesFound& found, ClassPlan& plan) {
  const bool by_label = found.order == ClassesFound::Order::kByLabel;
  if (!options.class_names.empty()) {
    plan.names = options.class_names;
    plan.from = "configuration";
    plan.numbers = ClassNumbers(plan.names);
  } else if (!found.names.empty() && found.is_public) {
    plan.names = found.names;
    plan.from = "corpus";
  } else if (!found.names.empty() && options.accept_class_names) {
    plan.names = proposed_order(found);
    plan.from = "source";
  } else if (!found.names.empty() && !by_label) {
    ask_for_names(options, proposed_order(found));
  } else {
    if (options.accept_class_names)
      log_warning("--accept-class-names: the source names no classes; they are called by number");
    else if (!found.names.empty())
      log_info(fmt::format(
          "classes are called by their numbers; to name them as a file beside the images does, "
          "set in section 'data':  {}",
          yaml_line(found.names)));
    for (std::int64_t c = 0; c < options.num_classes; ++c) plan.names.push_back(std::to_string(c));
    plan.from = "numbers";
  }
  if (options.num_classes != std::ssize(plan.names))
    throw UsageError(
        fmt::format("{} class names ({}) for data.num_classes={}; both are public and must agree",
                    plan.names.size(), quoted_list(plan.names, kShownNames), options.num_classes));
}

/// A file beside the images says which label has which name: a list with the same names in another
/// order would give every image the name of another class.
void check_order_of_labels(const PrepareOptions& options, const ClassesFound& found,
                           const ClassPlan& plan) {
  if (found.order != ClassesFound::Order::kByLabel || plan.from != "configuration") return;
  for (std::size_t label = 0; label < found.names.size(); ++label) {
    const auto at = std::ranges::find(plan.names, found.names[label]);
    if (at == plan.names.end() || at - plan.names.begin() == static_cast<std::ptrdiff_t>(label))
      continue;
    throw UsageError(fmt::format(
        "a file beside the images of '{}' calls label {} '{}', and data.class_names has that name "
        "for label {}; list the names in the order of the labels: {}",
        printable(options.source.string()), label, printable(found.names[label]),
        at - plan.names.begin(), yaml_line(found.names)));
  }
}

void check_found_are_known(const PrepareOptions& options, const ClassesFound& found,
                           const ClassPlan& plan) {
  if (found.order == ClassesFound::Order::kByLabel) return;
  for (const std::string& name : found.names)
    if (std::ranges::find(plan.names, name) == plan.names.end())
      throw DataError(unknown_class(printable(options.source.string()), name, plan.names));
}

void allow_empty_ones(const PrepareOptions& options, const ClassesFound& found, ClassPlan& plan) {
  plan.empty = options.allow_empty_classes;
  for (const std::string& name : options.allow_empty_classes) {
    const auto at = std::ranges::find(plan.names, name);
    if (name == kAnyClass && at == plan.names.end()) {
      plan.may_be_empty.assign(plan.names.size(), true);
      continue;
    }
    if (at == plan.names.end())
      throw UsageError(fmt::format("data.allow_empty_classes: there is no class '{}'{}",
                                   printable(name), did_you_mean(name, plan.names)));
    plan.may_be_empty[static_cast<std::size_t>(at - plan.names.begin())] = true;
  }
  for (const std::int64_t label : found.known_empty) {
    const std::string& name = found.names[static_cast<std::size_t>(label)];
    const auto at = std::ranges::find(plan.names, name);
    if (at == plan.names.end()) continue;
    plan.may_be_empty[static_cast<std::size_t>(at - plan.names.begin())] = true;
    if (std::ranges::find(plan.empty, name) == plan.empty.end()) plan.empty.push_back(name);
  }
}

/// What of their folders is not read, where it is something.
std::string passed_over_in(const Names& classes, const ImageSource& source) {
  std::string text;
  for (const std::string& name : classes)
    if (const UnreadFiles unread = source.unread_files_of(name); unread.total() > 0)
      text += fmt::format("; files of '{}' that are not read: {}", printable(name), unread.text());
  return text;
}

}  // namespace

std::vector<std::string> proposed_order(const ClassesFound& found) {
  Names names = found.names;
  if (found.order == ClassesFound::Order::kByLabel) return names;
  std::ranges::sort(names);
  if (std::ranges::all_of(names, is_number)) std::ranges::stable_sort(names, is_smaller_number);
  return names;
}

std::string unknown_class(const std::string& where, const std::string& name,
                          const std::vector<std::string>& known) {
  return fmt::format(
      "'{}' has the class '{}', which is not in the public list of class names ({}){}; correct the "
      "name, or add it to data.class_names if the public knows that there is such a class, or "
      "move its images away",
      where, printable(name), quoted_list(known, kShownNames), did_you_mean(name, known));
}

ClassPlan plan_classes(const PrepareOptions& options, const ClassesFound& found) {
  ClassPlan plan;
  if (options.num_classes == 0) {
    if (options.accept_class_names)
      throw UsageError(
          "--accept-class-names: data.num_classes is 0, which trains without classes; set it to "
          "the number of classes, or leave the option out");
    plan.from = "numbers";
    return plan;
  }
  if (found.order == ClassesFound::Order::kAny) check_is_text(options, found.names);
  choose_names(options, found, plan);
  check_names(plan.names);
  plan.may_be_empty.assign(plan.names.size(), false);
  plan.absent.assign(plan.names.size(), false);
  check_order_of_labels(options, found, plan);
  check_found_are_known(options, found, plan);
  allow_empty_ones(options, found, plan);
  if (found.order == ClassesFound::Order::kAny && !found.names.empty())
    for (std::size_t c = 0; c < plan.names.size(); ++c)
      plan.absent[c] = std::ranges::find(found.names, plan.names[c]) == found.names.end();
  for (std::size_t c = 0; c < plan.names.size(); ++c)
    plan.label_of_name.try_emplace(plan.names[c], c);
  return plan;
}

std::int32_t label_of(const SourceItem& item, const ClassPlan& plan) {
  if (plan.names.empty()) return 0;
  if (!item.class_name.empty()) {
    const auto at = plan.label_of_name.find(item.class_name);
    if (at == plan.label_of_name.end())
      throw DataError(unknown_class(printable(item.place), item.class_name, plan.names));
    return static_cast<std::int32_t>(at->second);
  }
  if (plan.numbers.are_names()) {
    const std::string name = plan.numbers.name_of(item.label);
    if (const auto at = plan.label_of_name.find(name); at != plan.label_of_name.end())
      return static_cast<std::int32_t>(at->second);
    throw DataError(fmt::format(
        "'{}' has label {}, and no class of data.class_names ({}) is called so: numbers are names "
        "there and not places in the list, because '{}' is not at its own place; correct the list, "
        "or set data.num_classes=0 to train without labels",
        printable(item.place), item.label, quoted_list(plan.names, kShownNames),
        printable(plan.numbers.misplaced())));
  }
  if (item.label >= 0 && item.label < std::ssize(plan.names))
    return static_cast<std::int32_t>(item.label);
  throw DataError(fmt::format(
      "'{}' has label {}, but data.num_classes is {} (labels 0 to {}); set data.num_classes, or 0 "
      "to train without labels",
      printable(item.place), item.label, plan.names.size(), plan.names.size() - 1));
}

void check_no_class_is_empty(const ClassPlan& plan, const std::vector<std::int64_t>& records,
                             const ImageSource& source, const std::string& skipped) {
  Names empty, absent;
  for (std::size_t c = 0; c < plan.names.size(); ++c)
    if (records[c] == 0 && !plan.may_be_empty[c])
      (plan.absent[c] ? absent : empty).push_back(plan.names[c]);
  if (!empty.empty())
    throw DataError(fmt::format(
        "no image for class{} {}{}{}; a network would be trained without {} and then be asked to "
        "draw {}. Put the images there, or, if {} may be without images, set "
        "data.allow_empty_classes to {} (a list of names becomes public; \"*\" says nothing of any "
        "class). Do not take a class out of the list because it has no image here: that would "
        "publish it",
        empty.size() == 1 ? "" : "es", quoted_list(empty, kShownNames),
        passed_over_in(empty, source), skipped, empty.size() == 1 ? "it" : "them",
        empty.size() == 1 ? "it" : "them", empty.size() == 1 ? "it" : "they", yaml_list(empty)));
  if (!absent.empty())
    log_warning(fmt::format(
        "the source has nothing of class{} {}: the network will not learn {}. `sample` draws all "
        "classes alike, because what is missing here must not be told from a corpus, unless "
        "data.allow_empty_classes names classes that the public may know to be empty",
        absent.size() == 1 ? "" : "es", quoted_list(absent, kShownNames),
        absent.size() == 1 ? "it" : "them"));
}

}  // namespace sfumato
