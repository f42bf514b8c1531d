#include <fmt/format.h>

#include <optional>

#include "image_source.h"
#include "member_walk.h"
#include "sfumato/io/tar.h"
#include "tree_source.h"

namespace sfumato {
namespace {

/// One archive after the other. Members of several are called after their archive, too.
class TarWalk : public MemberWalk {
 public:
  explicit TarWalk(const ArchiveSet& archives) : archives_(archives), cards_(archives.folder) {}

  bool next(Member& member) override {
    for (;; reader_.reset()) {
      if (!reader_) {
        if (next_file_ == archives_.files.size()) return false;
        reader_.emplace(archives_.files[next_file_++]);
        origin_ = origin_of(archives_, reader_->path());
      }
      while (reader_->next(entry_)) {
        look_for_card();
        std::string name = entry_.name;
        if (!relative_member_name(archives_.folder, place(), name)) continue;
        member = {std::move(name), kind_of(entry_), origin_};
        return true;
      }
      if (std::string remark = reader_->end_remark(); !remark.empty())
        remarks_.push_back(std::move(remark));
    }
  }

  std::string content(std::int64_t limit) override {
    return content_ ? *content_ : reader_->read_content(limit);
  }
  std::string place() const override {
    return fmt::format("{}:{}", reader_->path().string(), entry_.name);
  }
  std::vector<std::string> remarks() const override { return remarks_; }
  std::vector<CardFound> cards() const override { return cards_.found(); }

 private:
  void look_for_card() {
    content_.reset();
    if (entry_.kind != TarEntry::Kind::kFile || !cards_.wants(entry_.name)) return;
    if (entry_.size <= CardsInArchives::kMostBytes) content_ = reader_->read_content();
    cards_.add(reader_->path().string(), entry_.name, content_);
  }
  static Member::Kind kind_of(const TarEntry& entry) {
    switch (entry.kind) {
      case TarEntry::Kind::kFile: return Member::Kind::kFile;
      case TarEntry::Kind::kFolder: return Member::Kind::kFolder;
      default: return Member::Kind::kOther;
    }
  }

  ArchiveSet archives_;
  std::string origin_;  ///< of the archive that is read
  std::size_t next_file_ = 0;
  std::optional<TarReader> reader_;
  TarEntry entry_;
  std::optional<std::string> content_;  ///< of the entry, where it was read already
  CardsInArchives cards_;
  std::vector<std::string> remarks_;
};

}  // namespace

std::unique_ptr<MemberWalk> make_tar_walk(const ArchiveSet& archives) {
  return std::make_unique<TarWalk>(archives);
}

std::unique_ptr<ImageSource> make_tar_source(const PrepareOptions& options, SourcePass pass) {
  const ArchiveSet archives = find_archives(options.source);
  return make_tree_source(options, [archives] { return make_tar_walk(archives); },
                          {.pass = pass, .quick_to_list = false, .labels_in_json = true});
}

}  // namespace sfumato
