#include <fmt/format.h>

#include <optional>

#include "image_source.h"
#include "member_walk.h"
#include "sfumato/core/error.h"
#include "sfumato/io/zip.h"
#include "tree_source.h"

namespace sfumato {
namespace {

/// One archive after the other. Members of several are called after their archive, too.
class ZipWalk : public MemberWalk {
 public:
  explicit ZipWalk(const ArchiveSet& archives) : archives_(archives), cards_(archives.folder) {}

  bool next(Member& member) override {
    for (;; reader_.reset()) {
      if (!reader_) {
        if (next_file_ == archives_.files.size()) return false;
        reader_.emplace(archives_.files[next_file_++]);
        origin_ = origin_of(archives_, reader_->path());
        next_entry_ = 0;
      }
      while (next_entry_ < reader_->entries().size()) {
        entry_ = &reader_->entries()[next_entry_++];
        look_for_card();
        std::string name = entry_->name;
        if (!relative_member_name(archives_.folder, place(), name)) continue;
        member = {std::move(name), kind_of(*entry_), origin_};
        return true;
      }
    }
  }

  std::string content(std::int64_t limit) override { return reader_->read(*entry_, limit); }
  std::string place() const override {
    return fmt::format("{}:{}", reader_->path().string(), entry_->name);
  }
  std::vector<CardFound> cards() const override { return cards_.found(); }

 private:
  void look_for_card() {
    if (entry_->kind != ZipEntry::Kind::kFile || !cards_.wants(entry_->name)) return;
    std::optional<std::string> content;
    try {
      content = reader_->read(*entry_, CardsInArchives::kMostBytes);
    } catch (const DataError&) {
      // Damaged, encrypted or too large.
    }
    cards_.add(reader_->path().string(), entry_->name, content);
  }
  static Member::Kind kind_of(const ZipEntry& entry) {
    switch (entry.kind) {
      case ZipEntry::Kind::kFile: return Member::Kind::kFile;
      case ZipEntry::Kind::kFolder: return Member::Kind::kFolder;
      default: return Member::Kind::kOther;
    }
  }

  ArchiveSet archives_;
  std::string origin_;  ///< of the archive that is read
  std::size_t next_file_ = 0;
  std::optional<ZipReader> reader_;
  std::size_t next_entry_ = 0;
  const ZipEntry* entry_ = nullptr;
  CardsInArchives cards_;
};

}  // namespace

std::unique_ptr<MemberWalk> make_zip_walk(const ArchiveSet& archives) {
  return std::make_unique<ZipWalk>(archives);
}

std::unique_ptr<ImageSource> make_zip_source(const PrepareOptions& options, SourcePass pass) {
  const ArchiveSet archives = find_archives(options.source);
  return make_tree_source(options, [archives] { return make_zip_walk(archives); },
                          {.pass = pass, .quick_to_list = true});
}

}  // namespace sfumato
