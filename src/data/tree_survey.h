#pragma once
#include <optional>
#include <set>
#include <string>

#include "label_table.h"
#include "member_walk.h"
#include "split_names.h"
#include "tree_source.h"

namespace sfumato {

enum class MemberUse { kIgnored, kImage, kHidden, kLink, kMetadata, kOther };
/// What a member is for by name and kind alone; folders and clutter are ignored.
MemberUse use_of(const Member& member);

/// Counts a member that is passed over.
void count_unread(const Member& member, MemberUse use, UnreadFiles& files);

/// The folder at the top in which a member lies, or "".
std::string top_folder(const Member& member);

/// webdataset's reading of a name: the key goes to the first dot of the last part, the extension
/// (lower case) is the rest. False for names without either.
bool split_sample_name(const std::string& name, std::string& key, std::string& extension);

/// The label in a sample's JSON: its member `column`, or "class" where `column` is the default.
/// Empty if there is none. DataError for a label that is several.
std::string label_in_json(const nlohmann::json& value, const std::string& column,
                          const std::string& place);

/// In which folders images lie, to find out whether these may be classes that were forgotten.
class ImageFolders {
 public:
  /// The name of an image.
  void add(const std::string& image);
  /// UsageError where all images lie in folders, of which there are several beside each other, and
  /// nobody has said whether these are classes.
  void refuse_forgotten_classes(const PrepareOptions& options) const;

 private:
  std::string last_;
  std::set<std::string> folders_;
};

/// What a first pass over the names finds.
struct TreeSurvey {
  explicit TreeSurvey(const PrepareOptions& options)
      : table(options.label_column, options.class_names), sample_labels(options.class_names) {}
  std::set<std::string> folders;  ///< at the top; also those without an image
  std::string outside;            ///< an image in none of them, "" for none
  ImageFolders image_folders;
  bool is_corpus = false;  ///< of this program: its images are in images/, others are views
  SplitGuard splits;
  LabelTable table;
  bool labels_in_files = false;  ///< KEY.cls beside KEY.png
  bool labels_in_json = false;   ///< KEY.json
  LabelTexts sample_labels;
  std::string label_apart;  ///< a KEY.cls that has no image beside it, "" for none
  /// A label beside its image that is none to webdataset, because a dot stands in the name of both:
  /// what to say of it; "" for none.
  std::string dotted_label;
  bool has_json = false;            ///< KEY.json beside KEY.png, read or not
  std::string json_without_column;  ///< one of those read that does not have the label
  std::string label_file;    ///< a KEY.cls beside an image, though another column is asked for
  bool has_parquet = false;  ///< metadata.parquet, which is not read
};

/// DataError for labels that contradict each other or that are not where they can be read.
TreeSurvey survey_tree(MemberWalk& walk, const PrepareOptions& options, const TreeTraits& traits);

/// Images of a WebDataset; `survey` has labels in files or in JSON.
std::unique_ptr<ImageSource> make_webdataset_source(const PrepareOptions& options,
                                                    std::unique_ptr<MemberWalk> walk,
                                                    SourcePass pass, TreeSurvey survey);

}  // namespace sfumato
