#include "sfumato/corpus/corpus_writer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <numeric>
#include <stdexcept>

#include "corpus/class_folders.h"
#include "corpus/corpus_documents.h"
#include "corpus/image_sink.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/text.h"
#include "sfumato/io/json_file.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kPlanFile = ".sampling.json";

/// Everything that must agree for a corpus to be continued.
Json plan_of(const CorpusSpec& spec) {
  return {{"schema_version", 2},
          {"format", to_string(spec.format)},
          {"images_per_class", spec.images_per_class},
          {"class_names", spec.class_names},
          {"height", spec.shape.height},
          {"width", spec.shape.width},
          {"channels", spec.shape.channels},
          {"settings", spec.settings}};
}

/// "sampler.steps is 50 there and 100 here" for every leaf that differs.
std::vector<std::string> differences(const Json& there, const Json& here) {
  const auto flat = [](const Json& json) {
    return nlohmann::json::parse(json.dump()).flatten();  // sorted, so that order does not count
  };
  const nlohmann::json a = flat(there), b = flat(here);
  const auto value = [](const nlohmann::json& flattened, const std::string& key) {
    return flattened.contains(key) ? flattened[key].dump() : std::string("absent");
  };
  std::vector<std::string> keys;
  for (const auto& [key, ignored] : a.items()) keys.push_back(key);
  for (const auto& [key, ignored] : b.items())
    if (!a.contains(key)) keys.push_back(key);
  std::vector<std::string> found;
  for (const std::string& key : keys) {
    const std::string old_value = value(a, key), new_value = value(b, key);
    if (old_value == new_value) continue;
    std::string name = key.substr(1);
    std::replace(name.begin(), name.end(), '/', '.');
    if (name.starts_with("settings.")) name.erase(0, std::strlen("settings."));
    found.push_back(fmt::format("{} is {} there and {} here", name, old_value, new_value));
  }
  return found;
}

/// Flushes all files of the corpus to the disk at once.
void sync_file_system(const fs::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_CLOEXEC);
  const bool failed = fd < 0 || ::syncfs(fd) != 0;
  const int error = errno;
  if (fd >= 0) ::close(fd);
  if (failed)
    throw DataError(
        fmt::format("cannot flush '{}' to disk: {}; make room and run again to continue",
                    folder.string(), std::strerror(error)));
}

void check_spec(const CorpusSpec& spec) {
  const auto& counts = spec.images_per_class;
  if (std::ranges::any_of(counts, [](int64_t count) { return count < 0; }))
    throw UsageError("a class cannot have a negative number of images");
  if (std::accumulate(counts.begin(), counts.end(), int64_t{0}) == 0)
    throw UsageError("no images were asked for; give --count or --per-class");
  if (!spec.class_names.empty() && spec.class_names.size() != counts.size())
    throw UsageError(
        fmt::format("{} class names for {} classes", spec.class_names.size(), counts.size()));
}

}  // namespace

std::vector<ImageId> corpus_order(std::span<const int64_t> images_per_class) {
  std::vector<ImageId> order;
  const int64_t most = images_per_class.empty() ? 0 : std::ranges::max(images_per_class);
  for (int64_t index = 0; index < most; ++index)
    for (int64_t label = 0; label < std::ssize(images_per_class); ++label)
      if (index < images_per_class[static_cast<std::size_t>(label)])
        order.push_back({label, index});
  return order;
}

CorpusWriter::CorpusWriter(CorpusSpec spec) : spec_(std::move(spec)) {
  check_spec(spec_);
  spec_.class_folders = class_folders(spec_.class_names, std::ssize(spec_.images_per_class));
  order_ = corpus_order(spec_.images_per_class);
  try {
    open_folder();
  } catch (const fs::filesystem_error& error) {
    throw DataError(
        fmt::format("cannot look into '{}': {}; check the permissions or choose "
                    "another --out",
                    spec_.folder.string(), error.code().message()));
  }
  sink_ = make_image_sink(spec_, order_);
  complete_ = sink_->complete();
  done_ = std::ranges::count(complete_, true);
}

CorpusWriter::~CorpusWriter() = default;

void CorpusWriter::open_folder() {
  const fs::path& folder = spec_.folder;
  const fs::path plan_file = folder / kPlanFile;
  if (fs::exists(folder) && !fs::is_directory(folder))
    throw UsageError(fmt::format("'{}' is not a folder; choose another --out", folder.string()));
  if (fs::exists(plan_file)) return continue_corpus(Json::parse(read_json(plan_file).dump()));
  if (fs::exists(folder / "lineage.json"))
    throw UsageError(fmt::format("'{}' holds a finished corpus; choose another --out or remove it",
                                 folder.string()));
  if (fs::exists(folder)) remove_temporaries(folder);
  if (fs::exists(folder) && !fs::is_empty(folder))
    throw UsageError(fmt::format("'{}' is not empty and holds no corpus; choose another --out",
                                 folder.string()));
  make_folder(folder);
  write_json_atomic(plan_file, plan_of(spec_));
}

void CorpusWriter::continue_corpus(const Json& plan) {
  const auto differing = differences(plan, plan_of(spec_));
  if (!differing.empty())
    throw UsageError(
        fmt::format("'{}' holds an unfinished corpus made with other settings: {}; "
                    "give the same ones to continue it, or choose another --out",
                    spec_.folder.string(), fmt::join(differing, "; ")));
  remove_temporaries(spec_.folder);
}

std::vector<ImageId> CorpusWriter::next(int64_t most, std::optional<int64_t> end) {
  pending_.clear();
  std::vector<ImageId> images;
  const auto stop = static_cast<std::size_t>(end.value_or(total()));
  for (std::size_t i = cursor_; i < stop && std::ssize(images) < most; ++i) {
    if (complete_[i]) continue;
    pending_.push_back(static_cast<int64_t>(i));
    images.push_back(order_[i]);
  }
  return images;
}

void CorpusWriter::add(std::span<const Image> images) {
  if (images.size() != pending_.size())
    throw std::logic_error("a corpus takes the images that it asked for");
  for (std::size_t i = 0; i < images.size(); ++i) {
    sink_->add(pending_[i], encode_png(images[i]));
    complete_[static_cast<std::size_t>(pending_[i])] = true;
    cursor_ = static_cast<std::size_t>(pending_[i]) + 1;
    ++done_;
  }
  pending_.clear();
}

void CorpusWriter::finish(const Json& card, const Json& origin) {
  if (done_ != total())
    throw std::logic_error("a corpus is finished when all its images are there");
  write_corpus_documents(spec_, *sink_, card, origin);
  sync_file_system(spec_.folder);
  fs::remove(spec_.folder / kPlanFile);
  fsync_path(spec_.folder);
}

}  // namespace sfumato
