#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "label_table.h"
#include "tree_survey.h"

namespace sfumato {

constexpr std::int64_t kMaxLabelBytes = 4096;
constexpr std::int64_t kMaxSampleJsonBytes = 16 << 20;

/// Follows the members of a WebDataset, to learn where its labels are and which there are. Only
/// files beside an image count: a stray article.cls or settings.json says nothing.
class SampleSurvey {
 public:
  SampleSurvey(MemberWalk& walk, const PrepareOptions& options, const TreeTraits& traits,
               TreeSurvey& survey);

  void add(const Member& member, bool is_image);

  /// After the last member. Labels in JSON count only where no label has a file of its own, or
  /// where a column is asked for. All images have them or none: otherwise one image could decide
  /// where the labels of all others come from.
  void finish();

 private:
  struct LabelFile {
    bool is_json = false;
    std::string text = {};
    std::string place = {};
    std::string error = {};  ///< not empty: it cannot be read, should it be a label
  };
  /// "0.png" of img.0.png: what stands before the last dot.
  struct Dotted {
    std::string stem = {};
    std::string place = {};
    bool is_json = false;
  };
  /// What is known of the sample that is being gone through.
  struct Sample {
    std::string key = {};
    std::string folder = {};  ///< at the top
    bool has_image = false;
    bool has_json = false;
    std::vector<LabelFile> waiting = {};  ///< for the image
    std::vector<Dotted> dotted_images = {};
    std::vector<Dotted> dotted_labels = {};
    std::string label = {};       ///< of its .cls, else of its JSON
    std::string class_name = {};  ///< in its JSON
  };

  void leave_sample();
  void leave_dotted();
  void add_dotted(const std::string& extension, bool is_image);
  void add_label_file(bool is_json);
  LabelFile open(bool is_json);
  void read(const LabelFile& file);
  void read_cls(const LabelFile& file);
  void read_json(const LabelFile& file);
  void check_folder(const std::string& label, const std::string& place, std::string& defect) const;
  void check_json_labels() const;

  MemberWalk& walk_;
  std::string column_;
  bool is_asked_for_;  ///< the column is not the default one
  bool reads_json_;
  bool has_names_;  ///< public ones, which labels may contradict
  TreeSurvey& survey_;
  LabelTexts json_labels_;
  Sample sample_;
  std::int64_t with_label_ = 0;
  std::string with_label_place_;
  std::string json_defect_;  ///< why labels in JSON cannot be used
  std::string cls_defect_;   ///< the same of .cls files
};

}  // namespace sfumato
