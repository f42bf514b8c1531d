#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_map>

#include "image_source.h"
#include "label_table.h"
#include "member_walk.h"
#include "sfumato/core/error.h"
#include "sfumato/core/place.h"
#include "sfumato/core/printable.h"
#include "sfumato/io/json_file.h"
#include "sfumato/io/tar.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;

constexpr const char* kImages = "images";

/// What lineage.json of a corpus says of its classes.
struct Corpus {
  fs::path root;
  std::vector<std::string> names;
  std::unordered_map<std::string, std::string> name_of_folder;  ///< by name under images/
  std::vector<std::int64_t> empty;
  bool of_shards = false;
  std::vector<fs::path> shards;  ///< those that the source names; empty: all
};

/// The classes of a corpus from before they had names: folders 0, 1, ...
void read_numbers(const nlohmann::json& lineage, Corpus& corpus) {
  const auto counts = lineage.at("images_per_class").get<std::vector<std::int64_t>>();
  for (std::size_t label = 0; label < counts.size(); ++label) {
    corpus.names.push_back(std::to_string(label));
    corpus.name_of_folder[corpus.names.back()] = corpus.names.back();
    if (counts[label] == 0) corpus.empty.push_back(static_cast<std::int64_t>(label));
  }
}

void read_classes(const nlohmann::json& lineage, Corpus& corpus) {
  for (const nlohmann::json& entry : lineage.at("classes")) {
    if (entry.at("images").get<std::int64_t>() == 0)
      corpus.empty.push_back(std::ssize(corpus.names));
    corpus.names.push_back(entry.at("name").get<std::string>());
    if (entry.contains("folder"))
      corpus.name_of_folder[fs::path(entry["folder"].get<std::string>()).filename().string()] =
          corpus.names.back();
  }
}

/// The corpus whose lineage.json is in `root`; nothing if there is none, or none of ours.
std::optional<Corpus> corpus_in(const fs::path& root) {
  std::error_code error;
  if (fs::exists(root / ".sampling.json", error))
    throw DataError(fmt::format(
        "'{}' is an unfinished corpus; finish it first: the same `sfumato sample` again",
        printable(root.string())));
  const fs::path file = root / "lineage.json";
  if (!fs::is_regular_file(file, error)) return std::nullopt;
  try {
    const nlohmann::json lineage = read_json(file);
    if (lineage.at("made_by").at("name") != "sfumato") return std::nullopt;
    Corpus corpus;
    corpus.root = root;
    if (lineage.contains("classes"))
      read_classes(lineage, corpus);
    else
      read_numbers(lineage, corpus);
    corpus.of_shards = !fs::is_directory(root / kImages, error);
    return corpus;
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  } catch (const DataError&) {
    return std::nullopt;
  }
}

/// The corpus whose shards these archives are. DataError where only some are, or where they are of
/// several corpora: their numbers may stand for different classes.
std::optional<Corpus> corpus_of_shards(const std::vector<fs::path>& files) {
  std::optional<Corpus> corpus;
  for (std::size_t i = 0; i < files.size(); ++i) {
    if (!has_tar_extension(files[i].filename().string())) return std::nullopt;
    const fs::path folder = fs::absolute(files[i]).parent_path();
    if (corpus && corpus->root == folder) continue;
    std::optional<Corpus> other = corpus_in(folder);
    if (other && !other->of_shards) other.reset();  // somebody's archive beside its images/
    if (i == 0)
      corpus = std::move(other);
    else if (corpus || other)
      throw DataError(
          fmt::format("'{}' and '{}' are not of one corpus, and their labels may stand for "
                      "different classes; prepare them one at a time",
                      printable(files[0].string()), printable(files[i].string())));
  }
  if (corpus) corpus->shards = files;
  return corpus;
}

/// The corpus that `source` is: its folder, its images/, or some of its shards.
std::optional<Corpus> find_corpus(const fs::path& source) {
  std::error_code error;
  const fs::path path = without_slash(fs::absolute(source, error));
  if (!fs::is_directory(path, error)) {
    if (!is_archive_pattern(source) && !has_tar_extension(path.filename().string()))
      return std::nullopt;
    return corpus_of_shards(find_archives(source).files);
  }
  if (path.filename() == kImages)
    if (auto corpus = corpus_in(path.parent_path())) return corpus;
  return corpus_in(path);
}

ClassesFound classes_of(const Corpus& corpus) {
  return {.names = corpus.names, .is_public = true, .known_empty = corpus.empty};
}

/// The pictures of an image folder, their classes called as the lineage does.
class CorpusFolder : public ImageSource {
 public:
  CorpusFolder(Corpus corpus, const PrepareOptions& options) : corpus_(std::move(corpus)) {
    const fs::path images = corpus_.root / kImages;
    prefix_ = without_slash(options.source).filename() == kImages ? "" : "images/";
    PrepareOptions folder = options;
    folder.source = images;
    folder.label_column = kDefaultLabelColumn;
    folder.class_names.clear();
    for (const auto& [name, ignored] : corpus_.name_of_folder) folder.class_names.push_back(name);
    images_ = make_folder_source(folder);
  }

  bool next(SourceItem& item) override {
    if (!images_->next(item)) return false;
    const auto at = corpus_.name_of_folder.find(item.class_name);
    if (at != corpus_.name_of_folder.end()) item.class_name = at->second;
    item.name = prefix_ + item.name;
    return true;
  }

  ClassesFound classes_found() const override { return classes_of(corpus_); }
  UnreadFiles unread_files() const override { return images_->unread_files(); }

 private:
  Corpus corpus_;
  std::string prefix_;
  std::unique_ptr<ImageSource> images_;
};

/// The pictures in shards. A member's name begins with the number of its class.
class CorpusShards : public ImageSource {
 public:
  CorpusShards(Corpus corpus, const PrepareOptions& options, SourcePass pass)
      : corpus_(std::move(corpus)), pass_(pass), wants_classes_(options.num_classes > 0) {
    if (!corpus_.shards.empty()) {
      shards_ = corpus_.shards;
      prefix_ = shards_.size() > 1;
      return;
    }
    for (const auto& entry : fs::directory_iterator(options.source)) {
      const std::string name = entry.path().filename().string();
      if (name.starts_with("shard-") && has_tar_extension(name)) shards_.push_back(entry.path());
    }
    std::ranges::sort(shards_);
    prefix_ = true;
  }

  bool next(SourceItem& item) override {
    for (;; reader_.reset()) {
      if (!reader_) {
        if (next_shard_ == shards_.size()) return false;
        reader_.emplace(shards_[next_shard_++]);
      }
      TarEntry entry;
      while (reader_->next(entry)) {
        if (entry.kind != TarEntry::Kind::kFile) continue;
        if (cards_.wants(entry.name)) take_card(entry);
        if (!has_image_extension(entry.name)) continue;
        take(entry.name, item);
        return true;
      }
    }
  }

  ClassesFound classes_found() const override { return classes_of(corpus_); }
  std::vector<CardFound> cards() const override { return cards_.found(); }

 private:
  void take_card(const TarEntry& entry) {
    std::optional<std::string> content;
    if (entry.size <= CardsInArchives::kMostBytes) content = reader_->read_content();
    cards_.add(reader_->path().string(), entry.name, content);
  }

  void take(const std::string& member, SourceItem& item) {
    const fs::path& shard = reader_->path();
    item = {};
    item.name = prefix_ ? shard.filename().string() + "/" + member : member;
    item.place = fmt::format("{}:{}", shard.string(), member);
    if (wants_classes_) item.class_name = class_of(member);
    if (pass_ == SourcePass::kImages) item.encoded = reader_->read_content();
  }

  /// By the digits before the hyphen.
  std::string class_of(const std::string& member) const {
    const std::string digits = member.substr(0, member.find('-'));
    std::size_t label = corpus_.names.size();
    if (!digits.empty() && digits.size() < 10 &&
        digits.find_first_not_of("0123456789") == std::string::npos)
      label = std::stoul(digits);
    if (label < corpus_.names.size()) return corpus_.names[label];
    throw DataError(
        fmt::format("'{}:{}' is of none of the {} classes in '{}', which a member's name begins "
                    "with; take it out of the shard",
                    printable(reader_->path().string()), printable(member), corpus_.names.size(),
                    printable((corpus_.root / "lineage.json").string())));
  }

  Corpus corpus_;
  SourcePass pass_;
  bool wants_classes_;
  bool prefix_ = false;  ///< the source is several shards, or their folder
  std::vector<fs::path> shards_;
  std::size_t next_shard_ = 0;
  std::optional<TarReader> reader_;
  CardsInArchives cards_{""};
};

/// Numbers and names of its classes stand in the lineage, side by side.
void check_column(const PrepareOptions& options) {
  const std::string& column = options.label_column;
  if (options.num_classes == 0 || column == kDefaultLabelColumn || column == "class_name") return;
  throw UsageError(
      fmt::format("'{}' is a corpus, and its classes are in the columns label and class_name, not "
                  "in '{}'; leave data.label_column out",
                  printable(options.source.string()), printable(column)));
}

}  // namespace

bool is_own_corpus(const fs::path& source) { return find_corpus(source).has_value(); }

std::unique_ptr<ImageSource> make_corpus_source(const PrepareOptions& options, SourcePass pass) {
  std::optional<Corpus> corpus = find_corpus(options.source);
  if (!corpus)
    throw DataError(fmt::format("'{}' is no corpus", printable(options.source.string())));
  check_column(options);
  if (corpus->of_shards) return std::make_unique<CorpusShards>(*std::move(corpus), options, pass);
  return std::make_unique<CorpusFolder>(*std::move(corpus), options);
}

}  // namespace sfumato
