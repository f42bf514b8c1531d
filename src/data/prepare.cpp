#include "sfumato/data/prepare.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "cards_of_source.h"
#include "class_names.h"
#include "depth_watch.h"
#include "duplicate_table.h"
#include "holdout_pair.h"
#include "image_source.h"
#include "ordered_workers.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/log.h"
#include "sfumato/core/printable.h"
#include "sfumato/core/sha256.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/data/holdout.h"
#include "sfumato/data/record_store_writer.h"
#include "user_bound.h"

namespace sfumato {
namespace {

// Images in flight, and bytes of encoded images among them: what bounds the memory.
constexpr std::size_t kMaxInFlight = 256;
constexpr std::int64_t kMaxBytesInFlight = 64 << 20;
constexpr std::uintmax_t kMaxFileBytes = std::uintmax_t{1} << 30;

struct Decoded {
  std::string place;
  std::string error;  ///< not empty: the image is unreadable
  std::vector<std::uint8_t> pixels;
  std::string mended;  ///< not empty: what the decoder had to mend
  PixelDigest digest{};
  std::optional<DeepSamples> deep;
  PixelDigest stored_digest{};  ///< of `deep`: without what was cut off
  std::int32_t label = 0;
  std::int32_t user = -1;
  bool held_out = false;
  std::int64_t input_bytes = 0;
};

struct Job {
  SourceItem item;
  std::int32_t user = -1;
  std::int32_t label = 0;
  bool held_out = false;
};

std::string read_image_file(const std::filesystem::path& file) {
  std::error_code error;
  if (std::filesystem::file_size(file, error) > kMaxFileBytes && !error)
    throw DataError(fmt::format("'{}' is too large for an image", file.string()));
  return read_file(file);
}

/// Two images with the same digest are the same to the store; `deep` is told apart, too.
PixelDigest digest_of(const Image& image, std::int32_t user, const DeepSamples* deep = nullptr) {
  Sha256 hash;
  hash.update(&user, sizeof user);
  hash.update(image.pixels.data(), image.pixels.size());
  if (deep != nullptr) hash.update(deep->digest.data(), deep->digest.size());
  const auto digest = hash.finish();
  PixelDigest result;
  std::memcpy(result.data(), digest.data(), sizeof result);
  return result;
}

DecodedImage decode_item(SourceItem& item, const PrepareOptions& options) {
  DecodedImage decoded;
  if (!item.raw.pixels.empty()) {
    decoded.image = std::move(item.raw);
    return decoded;
  }
  if (!item.file.empty()) item.encoded = read_image_file(item.file);
  return decode_image(item.encoded, item.place,
                      {options.max_megapixels * 1'000'000, {options.depth_range}});
}

/// On a worker thread.
Decoded decode_job(Job&& job, const PrepareOptions& options) {
  SourceItem& item = job.item;
  Decoded result;
  result.place = item.place;
  result.label = job.label;
  result.user = job.user;
  result.held_out = job.held_out;
  result.input_bytes = std::ssize(item.encoded) + std::ssize(item.raw.pixels);
  try {
    DecodedImage decoded = decode_item(item, options);
    result.mended = std::move(decoded.mended);
    if (!result.mended.empty() && !options.keep_damaged)
      throw DataError(fmt::format("'{}' is damaged: {}", item.place, result.mended));
    const Image image =
        to_channels(center_crop_resize(decoded.image, options.image_size), options.channels);
    result.stored_digest = digest_of(image, job.user);
    // Without a range that says what the samples mean, no difference between them is dropped.
    const bool all_bits_count = decoded.deep && !options.depth_range;
    result.digest =
        all_bits_count ? digest_of(image, job.user, &*decoded.deep) : result.stored_digest;
    result.deep = decoded.deep;
    result.pixels = image.pixels;
  } catch (const DataError& error) {
    result.error = error.what();
  }
  item = {};
  return result;
}

void check_options(const PrepareOptions& options) {
  if (options.image_size < 1 || options.image_size > kMaxImagePixels / options.image_size)
    throw UsageError(fmt::format("data.image_size is {}", options.image_size));
  if (options.channels != 1 && options.channels != 3)
    throw UsageError(fmt::format("data.channels is {}; it is 1 or 3", options.channels));
  if (options.num_classes < 0)
    throw UsageError(fmt::format("data.num_classes is {}", options.num_classes));
  if (options.merge_folders && options.num_classes > 1)
    throw UsageError(
        fmt::format("data.merge_folders takes all folders as one set, and data.num_classes is {}; "
                    "leave one of them out",
                    options.num_classes));
  if (options.records_per_user < 1)
    throw UsageError(
        fmt::format("data.records_per_user is {}; it is at least 1", options.records_per_user));
  if (!(options.holdout >= 0 && options.holdout <= 0.5))
    throw UsageError(fmt::format("data.holdout is {}; it is 0 to 0.5", options.holdout));
  if (options.depth_range &&
      (options.depth_range->first < 0 || options.depth_range->second > 65535 ||
       options.depth_range->first >= options.depth_range->second))
    throw UsageError(
        fmt::format("data.depth_range is {},{}; it is two numbers of 0 to 65535, the "
                    "smaller first",
                    options.depth_range->first, options.depth_range->second));
  if (options.max_megapixels < 1 || options.max_megapixels > 1000)
    throw UsageError(
        fmt::format("data.max_megapixels is {}; it is 1 to 1000", options.max_megapixels));
  if (options.store.empty()) throw UsageError("data.store is empty; name the folder to write");
}

class Preparation {
 public:
  explicit Preparation(const PrepareOptions& options)
      : options_(options), format_(detect_format(options)) {
    if (options_.num_classes == 0) options_.num_classes = std::ssize(options_.class_names);
    check_options(options_);
    source_ = make_source(options_, format_, SourcePass::kImages);
    StoreLayout layout;
    layout.height = layout.width = options_.image_size;
    layout.channels = options_.channels;
    layout.num_classes = options_.num_classes;
    classes_ = plan_classes(options_, source_->classes_found());
    layout.class_names = classes_.names;
    layout.class_names_from = classes_.from;
    layout.classes_that_may_be_empty = classes_.empty;
    records_of_class_.resize(classes_.names.size());
    layout.has_users = !options_.users.empty();
    layout.records_per_user = layout.has_users ? options_.records_per_user : 1;
    report_.format = name_of(format_);
    report_.class_names = layout.class_names;
    report_.class_names_from = layout.class_names_from;
    report_.unit = unit_of_privacy(layout.has_users, layout.records_per_user);
    writer_.emplace(options_.store, layout, options_.key);
    if (options_.holdout > 0) open_holdout(layout);
    if (layout.has_users) select_of_users();
  }

  PrepareReport run() {
    run_pipeline();
    const UnreadFiles unread = source_->unread_files();
    report_.other_files = unread.total();
    report_.unread_files = unread.by_extension;
    if (report_.found == 0)
      throw DataError(
          fmt::format("no images in '{}' ({} other files{}{}); set data.source to a folder of "
                      "pictures, a tar or zip of one, an .npz, an IDX or a CIFAR file",
                      options_.source.string(), report_.other_files,
                      report_.other_files > 0 ? ": " : "", unread.text()));
    if (holdout_) check_both_sides();
    if (report_.kept == 0)
      throw DataError(fmt::format("none of the {} images in '{}' is readable", report_.found,
                                  options_.source.string()));
    check_no_class_is_empty(classes_, records_of_class_, *source_, passed_over());
    if (bound_) report_.users_held_out = bound_->users_kept_held_out(options_.holdout);
    if (bound_) report_.users = bound_->users_kept() - report_.users_held_out;
    report_.depth = depth_.report();
    const std::string warning = depth_.warning(options_);
    if (!warning.empty()) log_warning(warning);
    finish();
    return report_;
  }

 private:
  void open_holdout(const StoreLayout& layout) {
    held_by_ = holdout_rule(format_, layout.has_users);
    check_holdout_rule(held_by_, options_.adjacency);
    std::string key;  // its own
    if (!options_.key.empty()) key = hmac_sha256_hex(options_.key, "held out").substr(0, 32);
    holdout_.emplace(holdout_store(options_.store), layout, key);
  }

  void check_both_sides() const {
    if ((report_.held_out == 0) == (report_.kept == 0)) return;  // both, or nothing was readable
    throw DataError(
        fmt::format("data.holdout={} holds out {} of {} images; choose {}", options_.holdout,
                    report_.held_out == 0 ? "none" : "all", report_.held_out + report_.kept,
                    report_.held_out == 0 ? "a larger share, or 0" : "a smaller share"));
  }

  /// Both stores or none, but for a crash between them: the first one then is in the way, and no
  /// store goes with it.
  void finish() {
    nlohmann::json entry = manifest_entry();
    if (!holdout_) {
      report_.manifest_hash = writer_->finish(entry);
      return;
    }
    const nlohmann::json pair = {{"share", options_.holdout},
                                 {"by", held_by_},
                                 {"pair", hmac_sha256_hex(writer_->key(), "holdout pair")}};
    nlohmann::json other = entry;
    other[kHeldOutOf] = pair;
    holdout_->finish(other);
    try {
      entry[kHoldout] = pair;
      report_.manifest_hash = writer_->finish(entry);
    } catch (...) {
      std::error_code ignored;
      std::filesystem::remove_all(holdout_store(options_.store), ignored);
      throw;
    }
  }

  void select_of_users() {
    // The selection must not be told from the manifest's published hash: a key of its own.
    bound_.emplace(options_.users, options_.records_per_user,
                   hmac_sha256_hex(writer_->key(), "selection"));
    const auto names = make_source(options_, format_, SourcePass::kNames);
    for (SourceItem item; names->next(item);) bound_->admit_candidate(item.name);
    bound_->close();
    bound_->check_complete();
    report_.kept_by_bound = bound_->kept_by_bound();
    report_.users_alike = bound_->users_alike();
  }

  void run_pipeline() {
    const auto cores = std::clamp(std::thread::hardware_concurrency(), 1u, 8u);
    const std::size_t threads = options_.threads > 0 ? options_.threads : cores;
    OrderedWorkers<Job, Decoded> workers(
        threads, kMaxInFlight, [this](Job&& job) { return decode_job(std::move(job), options_); });
    for (Job job; source_->next(job.item);) {
      if (stop_requested())
        throw Interrupted(
            fmt::format("interrupted; nothing was written to '{}'", options_.store.string()));
      ++report_.found;
      job.label = label_of(job.item, classes_);
      if (bound_) {
        if (!bound_->keep(job.item.name)) {
          ++report_.over_user_bound;
          continue;
        }
        job.user = bound_->user(job.item.name);
      }
      job.held_out = holdout_ && (bound_ ? bound_->is_held_out(job.item.name, options_.holdout)
                                         : is_held_out(job.item.name, options_.holdout));
      bytes_in_flight_ += std::ssize(job.item.encoded) + std::ssize(job.item.raw.pixels);
      workers.push(std::move(job));
      while (workers.full() || (bytes_in_flight_ > kMaxBytesInFlight && !workers.empty()))
        store(workers.pop());
    }
    while (!workers.empty()) store(workers.pop());
  }

  /// What was seen and is in no class, for the message that a class has no image.
  std::string passed_over() const {
    std::string text;
    const auto add = [&](std::int64_t count, const char* what) {
      if (count > 0)
        text += fmt::format("{}{} {}", text.empty() ? " (in all: " : ", ", count, what);
    };
    add(report_.other_files, "other files not looked at");
    add(report_.unreadable, "unreadable images skipped");
    add(report_.over_user_bound, "images over the bound of their user");
    return text.empty() ? text : text + ")";
  }

  void store(Decoded&& image) {
    bytes_in_flight_ -= image.input_bytes;
    if (!image.error.empty()) {
      refuse_or_skip(image);
      return;
    }
    if (!image.mended.empty()) {
      log_warning(fmt::format("kept as mended: '{}': {}", image.place, image.mended));
      ++report_.damaged_kept;
    }
    if (image.deep) depth_.note(*image.deep);
    if (options_.deduplicate) {
      const auto seen = duplicates_[image.held_out].insert(image.digest, image.label);
      if (seen == DuplicateTable::Seen::kOtherLabel) ++report_.label_conflicts;
      if (seen == DuplicateTable::Seen::kDuplicate) {
        ++report_.duplicates;
        return;
      }
    }
    if (image.held_out) {
      holdout_->append(image.pixels, image.label, image.user);
      ++report_.held_out;
      return;
    }
    writer_->append(image.pixels, image.label, image.user);
    if (image.deep) depth_.note_record(image.stored_digest, image.label);
    ++report_.kept;
    if (!records_of_class_.empty()) ++records_of_class_[static_cast<std::size_t>(image.label)];
    log_progress();
  }

  void refuse_or_skip(const Decoded& image) {
    const bool damaged = !image.mended.empty();
    if (!options_.skip_unreadable)
      throw DataError(image.error + "; remove it, or set data.skip_unreadable=true" +
                      (damaged ? ", or data.damaged=keep to take it as the decoder mends it" : ""));
    log_warning("skipped: " + image.error);
    ++report_.unreadable;
    if (damaged) ++report_.damaged_skipped;
  }

  void log_progress() {
    const auto now = std::chrono::steady_clock::now();
    if (now - last_line_ < std::chrono::seconds(10)) return;
    last_line_ = now;
    log_info(fmt::format("prepared {} images", report_.kept));
  }

  nlohmann::json manifest_entry() const {
    nlohmann::json depth_range;  // null: the upper 8 bits
    if (options_.depth_range)
      depth_range = {options_.depth_range->first, options_.depth_range->second};
    return {{"format", name_of(format_)},
            {"source", printable(std::filesystem::absolute(options_.source).string())},
            {"cards", cards_of_source(options_.source, source_->cards())},
            {"image_size", options_.image_size},
            {"channels", options_.channels},
            {"deduplicate", options_.deduplicate},
            {"skip_unreadable", options_.skip_unreadable},
            {"damaged",
             to_string(options_.keep_damaged ? DamagedPictures::kKeep : DamagedPictures::kRefuse)},
            {"depth_range", depth_range},
            {"counts",
             {{"found", report_.found},
              {"kept", report_.kept},
              {"held_out", report_.held_out},
              {"duplicates", report_.duplicates},
              {"label_conflicts", report_.label_conflicts},
              {"unreadable", report_.unreadable},
              {"damaged_skipped", report_.damaged_skipped},
              {"damaged_kept", report_.damaged_kept},
              {"depth", depth_json(report_.depth)},
              {"over_user_bound", report_.over_user_bound},
              {"other_files", report_.other_files},
              {"unread_files", report_.unread_files},
              {"users", report_.users},
              {"users_held_out", report_.users_held_out}}}};
  }

  PrepareOptions options_;
  FoundFormat format_;
  std::unique_ptr<ImageSource> source_;
  std::optional<RecordStoreWriter> writer_;
  std::optional<RecordStoreWriter> holdout_;
  std::string held_by_;  ///< as holdout_rule()
  std::optional<UserBound> bound_;
  ClassPlan classes_;
  std::vector<std::int64_t> records_of_class_;
  std::array<DuplicateTable, 2> duplicates_;  ///< of training, of the holdout
  DepthWatch depth_;
  PrepareReport report_;
  std::int64_t bytes_in_flight_ = 0;
  std::chrono::steady_clock::time_point last_line_ = std::chrono::steady_clock::now();
};

}  // namespace

PrepareReport prepare(const PrepareOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  PrepareReport report = Preparation(options).run();
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace sfumato
