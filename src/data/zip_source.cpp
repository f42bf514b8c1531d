#include <fmt/format.h>

#include "image_source.h"
#include "member_walk.h"
#include "sfumato/core/error.h"
#include "sfumato/io/zip.h"
#include "tree_source.h"

namespace sfumato {
namespace {

class ZipWalk : public MemberWalk {
 public:
  explicit ZipWalk(const ArchiveSet& archives)
      : folder_(archives.folder), reader_(archives.files.front()) {}

  bool next(Member& member) override {
    while (next_ < reader_.entries().size()) {
      entry_ = &reader_.entries()[next_++];
      std::string name = entry_->name;
      if (!relative_member_name(folder_, place(), name)) continue;
      member = {std::move(name), kind_of(*entry_)};
      return true;
    }
    return false;
  }

  std::string content(std::int64_t limit) override { return reader_.read(*entry_, limit); }
  std::string place() const override {
    return fmt::format("{}:{}", reader_.path().string(), entry_->name);
  }

 private:
  static Member::Kind kind_of(const ZipEntry& entry) {
    switch (entry.kind) {
      case ZipEntry::Kind::kFile: return Member::Kind::kFile;
      case ZipEntry::Kind::kFolder: return Member::Kind::kFolder;
      default: return Member::Kind::kOther;
    }
  }

  std::string folder_;
  ZipReader reader_;
  std::size_t next_ = 0;
  const ZipEntry* entry_ = nullptr;
};

}  // namespace

std::unique_ptr<MemberWalk> make_zip_walk(const ArchiveSet& archives) {
  if (archives.files.size() > 1)
    throw UsageError(
        "data.source names several archives: only tar archives are read several at "
        "once; pack the others into one");
  return std::make_unique<ZipWalk>(archives);
}

std::unique_ptr<ImageSource> make_zip_source(const PrepareOptions& options, SourcePass pass) {
  const ArchiveSet archives = find_archives(options.source);
  return make_tree_source(options, [archives] { return make_zip_walk(archives); },
                          {.pass = pass, .quick_to_list = true});
}

}  // namespace sfumato
