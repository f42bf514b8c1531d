#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "sample_survey.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/io/json_file.h"

namespace sfumato {
namespace {

/// Neighbouring members with one key are a sample, as webdataset has it. One sample is in memory.
class WebDatasetSource : public ImageSource {
 public:
  WebDatasetSource(const PrepareOptions& options, std::unique_ptr<MemberWalk> walk, SourcePass pass,
                   TreeSurvey survey)
      : column_(options.label_column),
        walk_(std::move(walk)),
        pass_(pass),
        labels_in_json_(!survey.labels_in_files),
        labels_(std::move(survey.sample_labels)) {}

  bool next(SourceItem& item) override {
    for (Member member; walk_->next(member);) {
      const MemberUse use = use_of(member);
      if (use == MemberUse::kIgnored) continue;
      std::string key, extension;
      const std::string name = member.origin + member.name;
      if (use == MemberUse::kHidden || use == MemberUse::kLink ||
          !split_sample_name(name, key, extension)) {
        count_unread(member, use, unread_);
        continue;
      }
      Sample done;
      if (key != sample_.key) done = std::exchange(sample_, Sample{.key = key});
      add(name, extension, use == MemberUse::kImage);
      if (emit(std::move(done), item)) return true;
    }
    if (emit(std::exchange(sample_, {}), item)) return true;
    if (!std::exchange(remarks_shown_, true) && pass_ == SourcePass::kImages)
      for (const std::string& remark : walk_->remarks()) log_warning(remark);
    return false;
  }

  ClassesFound classes_found() const override { return labels_.classes_found(); }
  UnreadFiles unread_files() const override { return unread_; }
  std::vector<CardFound> cards() const override { return walk_->cards(); }

 private:
  struct Sample {
    std::string key = {};
    std::string image = {};  ///< name of the member
    std::string place = {};
    std::string encoded = {};
    std::string label = {};
    bool is_plain = false;  ///< "7.png", which goes before "7.mask.png"
    std::int64_t others = 0;
  };

  void add(const std::string& name, const std::string& extension, bool is_image) {
    if (is_image)
      add_image(name, extension.find('.') == std::string::npos);
    else if (!labels_in_json_ && extension == "cls")
      sample_.label = walk_->content(kMaxLabelBytes);
    else if (labels_in_json_ && extension == "json")
      sample_.label = label_in_json(parse_json(walk_->content(kMaxSampleJsonBytes), walk_->place()),
                                    column_, walk_->place());
    else
      unread_.add(name);
  }

  void add_image(const std::string& name, bool is_plain) {
    if (!sample_.image.empty() && is_plain == sample_.is_plain && is_plain)
      throw DataError(
          fmt::format("'{}' and '{}' are one sample to webdataset, and which of them is "
                      "its image is unclear; give them names that differ before the "
                      "first dot",
                      sample_.place, walk_->place()));
    if (!sample_.image.empty() && (sample_.is_plain || !is_plain)) {
      if (sample_.is_plain) unread_.add_as("(second image of a sample)");
      sample_.others += sample_.is_plain ? 0 : 1;
      return;
    }
    if (!sample_.image.empty()) unread_.add_as("(second image of a sample)");
    sample_.image = name;
    sample_.place = walk_->place();
    sample_.is_plain = is_plain;
    if (pass_ == SourcePass::kImages) sample_.encoded = walk_->content(std::int64_t{1} << 30);
  }

  /// False for a sample without an image.
  bool emit(Sample sample, SourceItem& item) {
    if (sample.image.empty()) return false;
    if (!sample.is_plain && sample.others > 0)
      throw DataError(
          fmt::format("'{}' and {} more images are one sample to webdataset, whose key "
                      "ends at the first dot; give them names that differ before it",
                      sample.place, sample.others));
    if (sample.label.empty())
      throw DataError(
          fmt::format("'{}' has no {} beside it; add it, pack the archive in the order of names "
                      "(tar --sort=name), or set data.num_classes=0",
                      sample.place, labels_in_json_ ? "label in a .json file" : ".cls file"));
    item = {};
    item.name = std::move(sample.image);
    item.place = std::move(sample.place);
    item.encoded = std::move(sample.encoded);
    labels_.apply(std::string_view(sample.label), item);
    return true;
  }

  std::string column_;
  std::unique_ptr<MemberWalk> walk_;
  SourcePass pass_;
  bool labels_in_json_;
  LabelTexts labels_;
  Sample sample_;
  UnreadFiles unread_;
  bool remarks_shown_ = false;
};

}  // namespace

std::unique_ptr<ImageSource> make_webdataset_source(const PrepareOptions& options,
                                                    std::unique_ptr<MemberWalk> walk,
                                                    SourcePass pass, TreeSurvey survey) {
  return std::make_unique<WebDatasetSource>(options, std::move(walk), pass, std::move(survey));
}

}  // namespace sfumato
