#include "sample_survey.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>
#include <utility>

#include "sfumato/core/error.h"
#include "sfumato/core/printable.h"
#include "sfumato/io/json_file.h"

namespace sfumato {
namespace {

constexpr std::size_t kMaxLabelFiles = 2;
constexpr std::size_t kMaxDotted = 16;

/// The names of class folders count; numbers are as often those of parts or of patients.
bool is_numbered(const std::string& name) {
  return name.find_first_not_of("0123456789") == std::string::npos;
}

}  // namespace

bool split_sample_name(const std::string& name, std::string& key, std::string& extension) {
  const std::size_t base = name.rfind('/') + 1;  // npos + 1 is 0
  const std::size_t dot = name.find('.', base);
  if (dot == std::string::npos || dot == base) return false;
  key = name.substr(0, dot);
  extension = name.substr(dot + 1);
  std::ranges::transform(extension, extension.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return true;
}

std::string label_in_json(const nlohmann::json& value, const std::string& column,
                          const std::string& place) {
  if (!value.is_object()) return "";
  auto at = value.find(column);
  if (at == value.end() && column == kDefaultLabelColumn) at = value.find("class");
  return at == value.end() ? "" : label_text(*at, place);
}

SampleSurvey::SampleSurvey(MemberWalk& walk, const PrepareOptions& options,
                           const TreeTraits& traits, TreeSurvey& survey)
    : walk_(walk),
      column_(options.label_column),
      is_asked_for_(column_ != kDefaultLabelColumn),
      reads_json_(traits.labels_in_json || is_asked_for_),
      has_names_(!options.class_names.empty()),
      survey_(survey),
      json_labels_(options.class_names) {}

void SampleSurvey::add(const Member& member, bool is_image) {
  std::string key, extension;
  if (!split_sample_name(member.origin + member.name, key, extension)) return;
  if (key != sample_.key) {
    leave_sample();
    sample_ = {.key = std::move(key), .folder = top_folder(member)};
  }
  if (extension.find('.') != std::string::npos) {
    add_dotted(extension, is_image);
  } else if (is_image) {
    sample_.has_image = true;
    for (const LabelFile& file : std::exchange(sample_.waiting, {})) read(file);
  } else if (extension == "cls" || extension == "json") {
    add_label_file(extension == "json");
  }
}

void SampleSurvey::add_label_file(bool is_json) {
  sample_.has_json = sample_.has_json || is_json;
  // Beside a .cls file JSON may still say what the class is called.
  const bool says_a_name = has_names_ && (!sample_.label.empty() || !sample_.waiting.empty());
  if (is_json && !reads_json_ && !says_a_name) return;
  const LabelFile file = open(is_json);
  // "7.json" comes before "7.png" where names are sorted.
  if (sample_.has_image)
    read(file);
  else if (sample_.waiting.size() < kMaxLabelFiles)
    sample_.waiting.push_back(file);
}

void SampleSurvey::add_dotted(const std::string& extension, bool is_image) {
  const std::size_t dot = extension.rfind('.');
  const std::string_view kind = std::string_view(extension).substr(dot + 1);
  if (!is_image && kind != "cls" && kind != "json") return;
  std::vector<Dotted>& list = is_image ? sample_.dotted_images : sample_.dotted_labels;
  if (list.size() < kMaxDotted)
    list.push_back({extension.substr(0, dot), walk_.place(), kind == "json"});
}

void SampleSurvey::leave_sample() {
  // The only picture of a sample is its image, whatever stands between the dots.
  if (!sample_.has_image && sample_.dotted_images.size() == 1 && sample_.dotted_labels.empty()) {
    sample_.has_image = true;
    for (const LabelFile& file : std::exchange(sample_.waiting, {})) read(file);
  }
  for (const LabelFile& file : sample_.waiting)
    if (!file.is_json && survey_.label_apart.empty()) survey_.label_apart = file.place;
  if (!sample_.has_image) leave_dotted();
  survey_.has_json = survey_.has_json || (sample_.has_image && sample_.has_json);
  if (is_asked_for_ || sample_.class_name.empty()) return;
  if (json_labels_.class_numbers().contradict(sample_.label, sample_.class_name))
    throw DataError(fmt::format("'{}': {}", printable(sample_.key),
                                other_class_name(sample_.label, sample_.class_name)));
}

/// img.0.cls beside img.0.png.
void SampleSurvey::leave_dotted() {
  for (const Dotted& label : sample_.dotted_labels)
    for (const Dotted& image : sample_.dotted_images) {
      if (label.stem != image.stem) continue;
      const std::string what = fmt::format(
          "'{}' is no label of '{}': in a WebDataset the key of a sample ends at the first dot, so "
          "that both belong to the sample '{}'; give images and labels names without other dots "
          "than that of the extension",
          label.place, image.place, sample_.key);
      if (survey_.dotted_label.empty()) survey_.dotted_label = what;
      std::string& defect = label.is_json ? json_defect_ : cls_defect_;
      if (defect.empty() && (!label.is_json || is_asked_for_)) defect = what;
      return;
    }
}

SampleSurvey::LabelFile SampleSurvey::open(bool is_json) {
  LabelFile file{.is_json = is_json, .place = walk_.place()};
  try {
    file.text = walk_.content(is_json ? kMaxSampleJsonBytes : kMaxLabelBytes);
  } catch (const DataError& error) {
    file.error = error.what();
  }
  return file;
}

/// What lies beside an image.
void SampleSurvey::read(const LabelFile& file) {
  if (file.is_json)
    read_json(file);
  else if (!is_asked_for_)
    read_cls(file);
  else if (survey_.label_file.empty())
    survey_.label_file = file.place;
}

void SampleSurvey::read_cls(const LabelFile& file) {
  if (!file.error.empty()) throw DataError(file.error);
  survey_.labels_in_files = true;
  survey_.sample_labels.add(file.text, file.place);
  sample_.label = trimmed(file.text);
  check_folder(sample_.label, file.place, cls_defect_);
}

void SampleSurvey::read_json(const LabelFile& file) {
  try {
    if (!file.error.empty()) throw DataError(file.error);
    const nlohmann::json value = parse_json(file.text, file.place);
    sample_.class_name = class_name_in(value);
    if (!reads_json_) return;
    const std::string label = label_in_json(value, column_, file.place);
    if (label.empty()) {
      survey_.json_without_column = file.place;
      return;
    }
    ++with_label_;
    with_label_place_ = file.place;
    json_labels_.add(label, file.place);
    if (sample_.label.empty()) sample_.label = label;
    check_folder(label, file.place, json_defect_);
  } catch (const DataError& error) {
    if (json_defect_.empty()) json_defect_ = error.what();
  }
}

/// Folders that are called as public classes say what the labels say.
void SampleSurvey::check_folder(const std::string& label, const std::string& place,
                                std::string& defect) const {
  if (!defect.empty() || is_numbered(sample_.folder) ||
      !json_labels_.class_numbers().contradict(label, sample_.folder))
    return;
  defect = fmt::format(
      "'{}' says that the class is '{}', and lies in the folder of the class '{}'; correct one of "
      "them, or give the folder a name that is not in data.class_names",
      place, printable(label), printable(sample_.folder));
}

void SampleSurvey::finish() {
  leave_sample();
  sample_ = {};
  if (!cls_defect_.empty() && !is_asked_for_) throw DataError(cls_defect_);
  if (survey_.labels_in_files || !reads_json_) return;
  const bool in_table = !survey_.table.empty() && survey_.table.has_labels();
  if (is_asked_for_ && in_table) {
    if (with_label_ > 0)
      throw DataError(
          fmt::format("'{}' and '{}' both have '{}' (data.label_column), and which of them has the "
                      "classes is unclear; take one of them out of data.source",
                      survey_.table.first_file(), with_label_place_, column_));
    return;
  }
  check_json_labels();
  if (with_label_ == 0) return;
  survey_.labels_in_json = true;
  survey_.sample_labels = std::move(json_labels_);
}

void SampleSurvey::check_json_labels() const {
  if (!json_defect_.empty()) throw DataError(json_defect_);
  if (with_label_ > 0 && !survey_.json_without_column.empty())
    throw DataError(
        fmt::format("'{}' has no '{}', and the JSON of other images has; add it, or set "
                    "data.num_classes=0",
                    survey_.json_without_column, column_));
}

}  // namespace sfumato
