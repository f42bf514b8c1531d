#include "tree_source.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <utility>

#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/core/printable.h"
#include "tree_survey.h"

namespace sfumato {
namespace {

constexpr std::int64_t kMaxImageBytes = std::int64_t{1} << 30;
constexpr std::size_t kNamesShown = 5;

/// Training on the images that were put aside for testing is not done without asking. `all_seen`
/// says whether the guard knows every image, or only those up to here.
void refuse_splits(const SplitGuard& guard, const PrepareOptions& options, bool all_seen) {
  std::vector<SplitGuard::Found> found = guard.found();
  std::erase_if(found, [&](const SplitGuard::Found& place) {
    return place.parent.empty() && std::ranges::all_of(place.splits, [&](const std::string& name) {
             return std::ranges::find(options.class_names, name) != options.class_names.end();
           });
  });
  if (found.empty()) return;
  const std::string& parent = found.front().parent;
  const std::vector<std::string>& splits = found.front().splits;
  const auto train = std::ranges::find_if(
      splits, [](const std::string& name) { return split_of(name) == "train"; });
  const std::string& chosen = train == splits.end() ? splits.back() : *train;
  const std::filesystem::path place = parent.empty() ? options.source : options.source / parent;
  std::string text =
      fmt::format("'{}'{} holds several splits: {}; they are not mixed: ", place.string(),
                  found.size() > 1 ? fmt::format(" (and {} more)", found.size() - 1) : "",
                  fmt::join(splits, ", "));
  const bool one_holds_all = found.front().holds_all && (found.size() == 1 || parent.empty());
  if (one_holds_all)
    text += fmt::format(
        "name the one to read, for example data.source={}{}", (place / chosen).string(),
        options.num_classes > 0 ? ", or, if they are classes, list them in data.class_names" : "");
  if (one_holds_all && !all_seen && !parent.empty()) text += "; if other folders have splits too, ";
  if (!one_holds_all || (!all_seen && !parent.empty()))
    text += fmt::format(
        "move the images of one split apart, so that '{}' becomes '{}', and name that folder in "
        "data.source; if they are no splits, give the folders other names",
        (std::filesystem::path(parent) / chosen).string(),
        (std::filesystem::path(chosen) / parent).string());
  throw DataError(text);
}

/// Class folders go before JSON beside the images, which may say anything; it is opened where there
/// are none.
bool labels_may_be_in_json(const TreeSurvey& survey, const PrepareOptions& options) {
  return options.num_classes > 1 && survey.has_json && !survey.outside.empty() &&
         !survey.labels_in_files && !survey.labels_in_json && !survey.is_corpus &&
         survey.json_without_column.empty() && (survey.table.empty() || !survey.table.has_labels());
}

/// Where labels come from.
enum class Labels { kNone, kFolders, kTable };

class TreeSource : public ImageSource {
 public:
  TreeSource(const PrepareOptions& options, const WalkFactory& walks, const TreeTraits& traits,
             std::optional<TreeSurvey> survey)
      : options_(options), traits_(traits), survey_(std::move(survey)), walk_(walks()) {
    if (survey_ && options.num_classes > 0) choose_labels(walks);
  }

  bool next(SourceItem& item) override {
    for (Member member; walk_->next(member);) {
      const std::string top = top_folder(member);
      if (const MemberUse use = use_of(member); use != MemberUse::kImage) {
        pass_over(member, use, top);
        continue;
      }
      if (survey_ && survey_->is_corpus && top != "images") {
        unread_.add_as("(beside images/ of a corpus)");
        continue;
      }
      // Without a first pass, splits show when the first image of the second one comes.
      if (!survey_ && guard_.add(member.name)) refuse_splits(guard_, options_, false);
      if (!survey_) folders_.add(member.name);
      item = {};
      item.name = member.origin + member.name;
      item.place = walk_->place();
      item.file = walk_->file();
      if (labels_ == Labels::kFolders) item.class_name = top;
      if (labels_ == Labels::kTable) take_row(item);
      if (item.file.empty() && traits_.pass == SourcePass::kImages)
        item.encoded = walk_->content(kMaxImageBytes);
      return true;
    }
    // Nor is it known before the end that no image lies outside of folders.
    if (!survey_) folders_.refuse_forgotten_classes(options_);
    if (!std::exchange(remarks_shown_, true) && traits_.pass == SourcePass::kImages)
      for (const std::string& remark : walk_->remarks()) log_warning(remark);
    return false;
  }

  ClassesFound classes_found() const override {
    if (labels_ == Labels::kTable) return survey_->table.classes_found();
    ClassesFound found;
    if (labels_ == Labels::kFolders)
      found.names.assign(survey_->folders.begin(), survey_->folders.end());
    return found;
  }
  UnreadFiles unread_files() const override { return unread_; }
  std::vector<CardFound> cards() const override { return walk_->cards(); }
  UnreadFiles unread_files_of(const std::string& class_name) const override {
    const auto at = unread_of_class_.find(class_name);
    return at == unread_of_class_.end() ? UnreadFiles{} : at->second;
  }

 private:
  void choose_labels(const WalkFactory& walks) {
    LabelTable& table = survey_->table;
    const std::string& column = table.column();
    const bool has_table = !table.empty() && table.has_labels();
    if (has_table) {
      labels_ = Labels::kTable;
      check_rows(*walks());
      return;
    }
    if (column != kDefaultLabelColumn) refuse_column(table);
    if (!survey_->outside.empty() && options_.num_classes > 1) refuse_flat(table);
    const std::vector<std::string> folders(survey_->folders.begin(), survey_->folders.end());
    if (check_class_folders(folders, survey_->outside, options_)) labels_ = Labels::kFolders;
  }

  /// A column that was asked for and is nowhere.
  [[noreturn]] void refuse_column(const LabelTable& table) const {
    const std::string asked = "data.label_column=" + table.column();
    std::string text;
    if (!table.empty())
      text = fmt::format("'{}' has no column '{}' (data.label_column); it has {}",
                         table.first_file(), table.column(), table.other_columns());
    else if (!survey_->json_without_column.empty())
      text = fmt::format("{}: '{}' has no such member, and no other .json beside an image either",
                         asked, survey_->json_without_column);
    else
      text = fmt::format(
          "'{}' has no metadata.csv or metadata.jsonl with such a column, and no .json beside its "
          "images with such a member, as {} says",
          options_.source.string(), asked);
    if (!survey_->label_file.empty())
      text += fmt::format("; leave data.label_column out to read the .cls files, as '{}'",
                          survey_->label_file);
    throw DataError(text);
  }

  /// Images that lie in no class folder, beside a table that has other columns.
  void refuse_flat(const LabelTable& table) const {
    if (!table.empty())
      throw DataError(
          fmt::format("'{}' has no column 'label'; name the one with the classes in "
                      "data.label_column (it has {}), or set data.num_classes=0",
                      table.first_file(), table.other_columns()));
    if (!survey_->label_apart.empty())
      throw DataError(fmt::format(
          "'{}' lies beside no image: in a WebDataset the members of a sample are neighbours and "
          "share their name up to the first dot; pack the archive in the order of names (tar "
          "--sort=name), and give samples names that differ before the first dot",
          survey_->label_apart));
    if (!survey_->dotted_label.empty()) throw DataError(survey_->dotted_label);
    if (!survey_->json_without_column.empty())
      throw DataError(
          fmt::format("'{}' has no member 'label' or 'class', nor has any other .json beside an "
                      "image; name the "
                      "member with the classes in data.label_column, or set data.num_classes=0",
                      survey_->json_without_column));
    if (survey_->has_parquet)
      throw DataError(
          fmt::format("the metadata.parquet of '{}' is not read; write its columns "
                      "file_name and label to a metadata.csv",
                      options_.source.string()));
  }

  /// Every image has a row and every row an image, before anything is decoded.
  void check_rows(MemberWalk& walk) {
    LabelTable& table = survey_->table;
    std::vector<std::string> missing;
    std::int64_t count = 0;
    SourceItem item;
    for (Member member; walk.next(member);) {
      if (use_of(member) != MemberUse::kImage) continue;
      if (survey_->is_corpus && top_folder(member) != "images") continue;
      const std::string name = member.origin + member.name;
      if (table.find(name, item)) {
        table.mark_seen(name);
      } else {
        ++count;
        if (missing.size() < kNamesShown) missing.push_back(printable(name));
      }
    }
    if (count > 0)
      throw DataError(fmt::format(
          "{} image{} no row in '{}': {}{}; add the rows, or take the images out of data.source",
          count, count == 1 ? " has" : "s have", table.first_file(), fmt::join(missing, ", "),
          count > std::ssize(missing) ? ", ..." : ""));
    const std::vector<std::string> rows = table.rows_without_image(kNamesShown);
    if (!rows.empty())
      throw DataError(
          fmt::format("{}{} names no image of '{}': the file is missing, or not read as "
                      "an image; remove the row, or add the image",
                      fmt::join(rows, ", "), rows.size() == kNamesShown ? ", ..." : "",
                      options_.source.string()));
  }

  void take_row(SourceItem& item) const {
    if (!survey_->table.find(item.name, item))
      throw DataError(fmt::format("'{}' has come while the source was read", item.place));
  }

  void pass_over(const Member& member, MemberUse use, const std::string& top) {
    if (use == MemberUse::kIgnored || (use == MemberUse::kMetadata && labels_ == Labels::kTable))
      return;
    count_unread(member, use, unread_);
    if (labels_ == Labels::kFolders && survey_->folders.contains(top))
      count_unread(member, use, unread_of_class_[top]);
  }

  PrepareOptions options_;
  TreeTraits traits_;
  std::optional<TreeSurvey> survey_;
  std::unique_ptr<MemberWalk> walk_;
  Labels labels_ = Labels::kNone;
  SplitGuard guard_;
  ImageFolders folders_;
  UnreadFiles unread_;
  std::map<std::string, UnreadFiles> unread_of_class_;
  bool remarks_shown_ = false;
};

}  // namespace

std::unique_ptr<ImageSource> make_tree_source(const PrepareOptions& options, WalkFactory walks,
                                              const TreeTraits& traits) {
  std::optional<TreeSurvey> survey;
  // An archive without an index is gone through once more only where classes must be known first.
  if (options.num_classes > 0 || traits.quick_to_list) {
    survey.emplace(survey_tree(*walks(), options, traits));
    if (labels_may_be_in_json(*survey, options)) {
      TreeTraits with_json = traits;
      with_json.labels_in_json = true;
      survey.emplace(survey_tree(*walks(), options, with_json));
    }
    refuse_splits(survey->splits, options, true);
    if (survey->labels_in_files || survey->labels_in_json)
      return make_webdataset_source(options, walks(), traits.pass, std::move(*survey));
    if (options.num_classes == 0) survey->image_folders.refuse_forgotten_classes(options);
  }
  return std::make_unique<TreeSource>(options, walks, traits, std::move(survey));
}

}  // namespace sfumato
