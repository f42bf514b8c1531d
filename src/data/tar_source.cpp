#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "image_source.h"
#include "sfumato/core/error.h"
#include "sfumato/io/tar.h"

namespace sfumato {
namespace {

bool is_hidden(std::string_view name) {
  return name.starts_with('.') || name.find("/.") != std::string_view::npos;
}

/// `name` relative to `folder`; false if it lies elsewhere.
bool relative_to(const std::string& folder, std::string& name) {
  if (folder.empty()) return !name.empty();
  if (!name.starts_with(folder + "/")) return false;
  name.erase(0, folder.size() + 1);
  return !name.empty();
}

class TarSource : public ImageSource {
 public:
  TarSource(const PrepareOptions& options, SourcePass pass)
      : path_(split_archive_path(options.source)), pass_(pass), reader_(path_.archive) {
    // What is no tree of class folders is refused before anything is read, and an archive has no
    // index: one more pass over it.
    if (options.num_classes > 0) find_classes(options);
  }

  bool next(SourceItem& item) override {
    TarEntry entry;
    while (reader_.next(entry)) {
      std::string name = entry.name;
      if (entry.kind == TarEntry::Kind::kFolder || !relative_to(path_.folder, name)) continue;
      if (!is_image(entry, name)) {
        ++others_;
        continue;
      }
      item = {};
      item.place = fmt::format("{}:{}", path_.archive.string(), entry.name);
      if (has_classes_) item.class_name = name.substr(0, name.find('/'));
      item.name = std::move(name);
      if (pass_ == SourcePass::kImages) item.encoded = reader_.read_content();
      return true;
    }
    return false;
  }

  ClassesFound classes_found() const override { return {.names = class_names_}; }
  std::int64_t other_files() const override { return others_; }

 private:
  static bool is_image(const TarEntry& entry, const std::string& name) {
    return entry.kind == TarEntry::Kind::kFile && !is_hidden(name) && has_image_extension(name);
  }

  void find_classes(const PrepareOptions& options) {
    TarReader reader(path_.archive);
    TarEntry entry;
    std::set<std::string> folders;
    std::string outside;
    while (reader.next(entry)) {
      std::string name = entry.name;
      if (!relative_to(path_.folder, name) || is_hidden(name)) continue;
      const std::size_t slash = name.find('/');
      if (entry.kind == TarEntry::Kind::kFolder)
        folders.insert(name.substr(0, slash));
      else if (is_image(entry, name) && slash != std::string::npos)
        folders.insert(name.substr(0, slash));
      else if (is_image(entry, name) && outside.empty())
        outside = name;
    }
    class_names_.assign(folders.begin(), folders.end());
    has_classes_ = check_class_folders(class_names_, outside, options);
    if (!has_classes_) class_names_.clear();
  }

  ArchivePath path_;
  SourcePass pass_;
  TarReader reader_;
  bool has_classes_ = false;
  std::vector<std::string> class_names_;  ///< sorted
  std::int64_t others_ = 0;
};

}  // namespace

std::unique_ptr<ImageSource> make_tar_source(const PrepareOptions& options, SourcePass pass) {
  return std::make_unique<TarSource>(options, pass);
}

}  // namespace sfumato
