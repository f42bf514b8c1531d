#include "sfumato/features/corpus_images.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/io/clutter.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> pictures_of(const fs::path& corpus) {
  std::vector<fs::path> found;
  if (!fs::is_directory(corpus / "images")) return found;
  for (const auto& entry : fs::recursive_directory_iterator(corpus / "images")) {
    const std::string name = entry.path().lexically_relative(corpus).generic_string();
    if (entry.is_regular_file() && !is_hidden(name) && !is_clutter(name) &&
        has_image_extension(name))
      found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

std::vector<fs::path> shards_of(const fs::path& corpus) {
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(corpus)) {
    const std::string name = entry.path().filename().string();
    if (entry.is_regular_file() && !name.starts_with(".") && name.ends_with(".tar"))
      found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace

CorpusImages::CorpusImages(const fs::path& corpus, int64_t count) : corpus_(corpus) {
  if (count < 0) throw UsageError("--count takes a number of images, 0 for all of them");
  if (!fs::is_directory(corpus))
    throw UsageError(fmt::format("the corpus '{}' is not a folder", corpus.string()));
  files_ = pictures_of(corpus);
  const int64_t pictures = std::ssize(files_);
  left_ = count > 0 ? count : std::numeric_limits<int64_t>::max();
  if (pictures == 0) {
    files_ = shards_of(corpus);
    shards_ = true;
  } else if (count > 0 && count < pictures) {
    std::vector<fs::path> spread;
    for (int64_t i = 0; i < count; ++i)
      spread.push_back(files_[static_cast<std::size_t>(i * pictures / count)]);
    files_ = std::move(spread);
  }
  if (files_.empty())
    throw UsageError(
        fmt::format("'{}' is no corpus: it has neither pictures under images/ nor "
                    "shards (*.tar); make one with sfumato sample",
                    corpus.string()));
}

bool CorpusImages::next() {
  if (left_ == 0) return false;
  if (shards_ ? !next_in_shards() : next_file_ == files_.size()) return false;
  if (!shards_) {
    path_ = files_[next_file_++];
    name_ = path_.lexically_relative(corpus_).generic_string();
  }
  --left_;
  return true;
}

bool CorpusImages::next_in_shards() {
  for (;; reader_.reset()) {
    if (!reader_) {
      if (next_file_ == files_.size()) return false;
      reader_ = std::make_unique<TarReader>(files_[next_file_++]);
    }
    TarEntry entry;
    while (reader_->next(entry)) {
      if (entry.kind != TarEntry::Kind::kFile || is_clutter(entry.name) ||
          !has_image_extension(entry.name))
        continue;
      name_ = reader_->path().filename().string() + "/" + entry.name;
      return true;
    }
  }
}

Image CorpusImages::image() {
  return decode_image(shards_ ? reader_->read_content() : read_file(path_), name_);
}

}  // namespace sfumato
