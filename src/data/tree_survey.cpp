#include "tree_survey.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

#include "sfumato/core/error.h"
#include "sfumato/io/clutter.h"
#include "sfumato/io/json_file.h"

namespace sfumato {
namespace {

constexpr std::int64_t kMaxLabelBytes = 4096;
constexpr std::int64_t kMaxSampleJsonBytes = 16 << 20;
constexpr std::int64_t kMaxMetadataBytes = std::int64_t{256} << 20;

std::string folder_of(const std::string& name) {
  const std::size_t slash = name.rfind('/');
  return slash == std::string::npos ? "" : name.substr(0, slash);
}

std::string_view file_name_of(std::string_view name) {
  return name.substr(name.rfind('/') + 1);  // npos + 1 is 0
}

/// Follows the members of a WebDataset, to learn where its labels are and which there are. Only
/// files beside an image count: a stray article.cls or settings.json says nothing.
class SampleSurvey {
 public:
  SampleSurvey(MemberWalk& walk, const PrepareOptions& options, const TreeTraits& traits,
               TreeSurvey& survey)
      : walk_(walk),
        column_(options.label_column),
        reads_json_(traits.labels_in_json),
        survey_(survey),
        json_labels_(options.class_names) {}

  void add(const Member& member, bool is_image) {
    std::string key, extension;
    if (!split_sample_name(member.origin + member.name, key, extension)) return;
    if (key != key_) {
      leave_sample();
      key_ = std::move(key);
      has_image_ = false;
    }
    if (is_image && extension.find('.') == std::string::npos) {
      has_image_ = true;
      for (const LabelFile& file : waiting_) read(file);
      waiting_.clear();
    } else if (extension == "cls" || (reads_json_ && extension == "json")) {
      const LabelFile file = open(extension == "json");
      // "7.json" comes before "7.png" where names are sorted.
      if (has_image_)
        read(file);
      else if (waiting_.size() < kMaxLabelFiles)
        waiting_.push_back(file);
    }
  }

  /// Labels in JSON count only where no label has a file of its own. All images have them or none:
  /// otherwise one image could decide where the labels of all others come from.
  void finish() {
    leave_sample();
    if (survey_.labels_in_files || with_label_ == 0) return;
    if (!without_label_.empty())
      throw DataError(
          fmt::format("'{}' has no '{}', and the JSON of other images has; add it, or set "
                      "data.num_classes=0",
                      without_label_, column_));
    survey_.labels_in_json = true;
    survey_.sample_labels = std::move(json_labels_);
  }

 private:
  struct LabelFile {
    bool is_json = false;
    std::string text = {};
    std::string place = {};
    std::string error = {};  ///< not empty: it cannot be read, should it be a label
  };
  static constexpr std::size_t kMaxLabelFiles = 2;

  void leave_sample() {
    for (const LabelFile& file : waiting_)
      if (!file.is_json && survey_.label_apart.empty()) survey_.label_apart = file.place;
    waiting_.clear();
  }

  LabelFile open(bool is_json) {
    LabelFile file{.is_json = is_json, .place = walk_.place()};
    try {
      file.text = walk_.content(is_json ? kMaxSampleJsonBytes : kMaxLabelBytes);
    } catch (const DataError& error) {
      file.error = error.what();
    }
    return file;
  }

  /// What lies beside an image.
  void read(const LabelFile& file) {
    if (!file.error.empty()) throw DataError(file.error);
    if (!file.is_json) {
      survey_.labels_in_files = true;
      survey_.sample_labels.add(file.text, file.place);
      return;
    }
    const std::string label = label_in_json(file.text, column_, file.place);
    if (label.empty()) {
      without_label_ = file.place;
    } else {
      ++with_label_;
      json_labels_.add(label, file.place);
    }
  }

  MemberWalk& walk_;
  std::string column_;
  bool reads_json_;
  TreeSurvey& survey_;
  std::string key_;  ///< of the sample that is being gone through
  bool has_image_ = false;
  std::vector<LabelFile> waiting_;
  std::int64_t with_label_ = 0;
  std::string without_label_;
  LabelTexts json_labels_;
};

}  // namespace

MemberUse use_of(const Member& member) {
  if (member.kind == Member::Kind::kFolder || is_clutter(member.name)) return MemberUse::kIgnored;
  if (is_hidden(member.name)) return MemberUse::kHidden;
  if (member.kind == Member::Kind::kOther) return MemberUse::kLink;
  const std::string_view name = file_name_of(member.name);
  if (has_image_extension(name)) return MemberUse::kImage;
  return LabelTable::is_metadata_name(name) ? MemberUse::kMetadata : MemberUse::kOther;
}

void count_unread(const Member& member, MemberUse use, UnreadFiles& files) {
  if (use == MemberUse::kHidden)
    files.add_as("(hidden)");
  else if (use == MemberUse::kLink)
    files.add_as("(link)");
  else
    files.add(member.name);
}

std::string top_folder(const Member& member) {
  const std::size_t slash = member.name.find('/');
  return slash == std::string::npos ? "" : member.name.substr(0, slash);
}

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

std::string label_in_json(std::string_view text, const std::string& column,
                          const std::string& place) {
  const nlohmann::json value = parse_json(text, place);
  if (!value.is_object()) return "";
  auto at = value.find(column);
  if (at == value.end() && column == "label") at = value.find("class");
  return at == value.end() ? "" : label_text(*at, place);
}

TreeSurvey survey_tree(MemberWalk& walk, const PrepareOptions& options, const TreeTraits& traits) {
  TreeSurvey survey(options);
  SampleSurvey samples(walk, options, traits, survey);
  bool has_card = false;
  for (Member member; walk.next(member);) {
    const MemberUse use = use_of(member);
    const std::string top = top_folder(member);
    if (member.kind == Member::Kind::kFolder && !is_clutter(member.name) && !is_hidden(member.name))
      survey.folders.insert(top.empty() ? member.name : top);
    if (use == MemberUse::kImage) {
      survey.splits.add(member.name);
      if (!top.empty()) survey.folders.insert(top);
      if (top.empty() && survey.outside.empty()) survey.outside = member.name;
    }
    has_card = has_card || member.name == "privacy_card.json";
    survey.has_parquet = survey.has_parquet || file_name_of(member.name) == "metadata.parquet";
    if (options.num_classes == 0) continue;
    if (use == MemberUse::kMetadata)
      survey.table.add(folder_of(member.origin + member.name), walk.place(),
                       walk.content(kMaxMetadataBytes));
    if (use == MemberUse::kImage || use == MemberUse::kOther)
      samples.add(member, use == MemberUse::kImage);
  }
  samples.finish();
  survey.table.close();
  survey.is_corpus = has_card && survey.folders.contains("images");
  if (survey.is_corpus) survey.outside.clear();
  return survey;
}

}  // namespace sfumato
