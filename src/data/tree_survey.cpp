#include "tree_survey.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "sample_survey.h"
#include "sfumato/core/error.h"
#include "sfumato/core/printable.h"
#include "sfumato/io/clutter.h"

namespace sfumato {
namespace {

constexpr std::size_t kFoldersShown = 5;
constexpr std::size_t kMaxFolders = 100000;  // more are no classes that anybody would list
constexpr std::int64_t kMaxMetadataBytes = std::int64_t{256} << 20;

std::string folder_of(const std::string& name) {
  const std::size_t slash = name.rfind('/');
  return slash == std::string::npos ? "" : name.substr(0, slash);
}

std::string_view file_name_of(std::string_view name) {
  return name.substr(name.rfind('/') + 1);  // npos + 1 is 0
}

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

void ImageFolders::add(const std::string& image) {
  const std::string folder = folder_of(image);
  if (folder == last_ && !folders_.empty()) return;
  last_ = folder;
  if (folders_.size() < kMaxFolders) folders_.insert(folder);
}

void ImageFolders::refuse_forgotten_classes(const PrepareOptions& options) const {
  if (options.num_classes > 1 || options.merge_folders || folders_.size() < 2) return;
  std::string parent = *folders_.begin();  // of all; "a/b" sorts before "a/c/d"
  while (!parent.empty() && !std::ranges::all_of(folders_, [&](const std::string& folder) {
    return folder == parent || folder.starts_with(parent + "/");
  }))
    parent = folder_of(parent);
  if (folders_.contains(parent)) return;  // images beside the folders
  std::set<std::string> names;
  const std::size_t begin = parent.empty() ? 0 : parent.size() + 1;
  for (const std::string& folder : folders_)
    names.insert(folder.substr(begin, folder.find('/', begin) - begin));
  std::vector<std::string> shown;
  for (const std::string& name : names)
    if (shown.size() < kFoldersShown) shown.push_back(fmt::format("'{}'", printable(name)));
  const std::filesystem::path place = parent.empty() ? options.source : options.source / parent;
  throw UsageError(fmt::format(
      "the images of '{}' lie in {} folders ({}{}), and data.num_classes is {}: nobody has said "
      "whether the folders are classes. If they are, set data.num_classes={} and list them in "
      "data.class_names{}; if not, data.merge_folders=true takes all images as one set without "
      "classes (where each is one person's, name them in data.users)",
      printable(place.string()), names.size(), fmt::join(shown, ", "),
      names.size() > shown.size() ? ", ..." : "", options.num_classes, names.size(),
      parent.empty() ? "" : fmt::format(", and data.source={}", printable(place.string()))));
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
      survey.image_folders.add(member.name);
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
