#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "sfumato/core/choices.h"

namespace sfumato {

/// What `prepare` does; the settings under `data` say the same (see configs/base.yaml).
struct PrepareOptions {
  /// Folder, archive or file of private images. A folder inside an archive is named as if the
  /// archive were a folder: "images.tar.gz/train".
  std::filesystem::path source;
  /// Labels of an IDX source (an IDX file) or of numpy images (an .npy file, or "a.npz/ARRAY" for
  /// an array of an archive); empty: none, or those of the archive itself.
  std::filesystem::path labels;
  /// Column of metadata.csv or metadata.jsonl, or member of a WebDataset's JSON, with the class.
  std::string label_column = "label";
  /// CSV with the columns `file` (or `file_name`) and `user`, or with lines `file,user`; empty: the
  /// unit of privacy is one image.
  std::filesystem::path users;
  SourceFormat format = SourceFormat::kAuto;
  std::filesystem::path store;   ///< the record store to write
  std::int64_t image_size = 0;   ///< side of the square records, pixels
  std::int64_t channels = 0;     ///< 1 grey, 3 RGB
  std::int64_t num_classes = 0;  ///< public; 0: unconditional, labels are not read
  /// Public names of the classes, label by label; sets num_classes where that is 0. Empty: a source
  /// that names its classes is refused, in others a class is called by its number.
  std::vector<std::string> class_names;
  /// With num_classes 0 or 1: folders are no classes. Without it a source of several is refused.
  bool merge_folders = false;
  bool accept_class_names = false;  ///< takes the names found in the source as public ones
  /// Names of classes that are publicly known to be without images perhaps; "*" for any class.
  std::vector<std::string> allow_empty_classes;
  std::int64_t records_per_user = 1;
  double holdout = 0;  ///< share of the units that go to holdout_store(store) instead; 0 to 0.5
  /// What the holdout must not contradict.
  Adjacency adjacency = Adjacency::kZeroOut;
  bool skip_unreadable = false;
  bool keep_damaged = false;  ///< take pictures that the decoder had to mend
  /// The 16-bit samples that become 0 and 255, public literals; nothing: the upper 8 bits are kept.
  std::optional<std::pair<std::int64_t, std::int64_t>> depth_range;
  std::int64_t max_megapixels = 64;  ///< larger pictures are unreadable
  bool deduplicate = true;
  int threads = 0;  ///< decoding threads; 0: the machine's, at most 8
  std::string key;  ///< 32 secret bytes that key manifest and selection; empty: random
};

/// Pictures whose samples have 16 bits, as they were before they came to 8.
struct DepthReport {
  std::int64_t images = 0;
  std::int64_t min = 0;  ///< of all their samples
  std::int64_t max = 0;
  std::int64_t dark =
      0;  ///< all samples below 4096: at most 15 of 255 is left with the upper 8 bits
  /// Records of them that are equal to another's since their depth was cut; none was dropped for
  /// it.
  std::int64_t equal_at_8_bits = 0;
};

/// How many images a bound on a user's images keeps.
struct KeptByBound {
  std::int64_t records_per_user = 0;
  std::int64_t images = 0;
};

/// What was done. All counts are of private data: for the data holder's eyes, not for publication.
struct PrepareReport {
  std::int64_t found = 0;            ///< images in the source
  std::int64_t kept = 0;             ///< records in the store
  std::int64_t held_out = 0;         ///< records in holdout_store()
  std::int64_t duplicates = 0;       ///< dropped: same pixels, label and user as an earlier one
  std::int64_t label_conflicts = 0;  ///< kept, though the same pixels have another label as well
  std::int64_t unreadable = 0;       ///< skipped
  std::int64_t damaged_skipped = 0;  ///< of the unreadable: the decoder had to mend them
  std::int64_t damaged_kept = 0;     ///< the decoder had to mend them, and they were taken
  DepthReport depth;                 ///< of pictures with 16-bit samples
  std::int64_t over_user_bound = 0;  ///< dropped by the bound on a user's records
  std::int64_t other_files = 0;      ///< no images by name, or hidden: not looked at
  std::map<std::string, std::int64_t> unread_files;  ///< these by extension
  std::int64_t users = 0;           ///< users with at least one record in the store
  std::int64_t users_held_out = 0;  ///< in holdout_store()
  /// With users: what other bounds would have kept of all images of the source, the last one all.
  std::vector<KeptByBound> kept_by_bound;
  std::int64_t users_alike = 0;  ///< groups of ids that differ in spaces or case alone
  std::string format;            ///< what the source was read as
  std::vector<std::string> class_names;
  std::string class_names_from;  ///< as StoreLayout::class_names_from
  std::string unit;              ///< unit of privacy in words
  std::string manifest_hash;
  double seconds = 0;
};

/// Turns private images into a record store. Sources:
///
/// - folder: a tree with one folder per class (named as the class, images at any depth below), or,
///   with num_classes 0 or 1, any tree; if all its images lie in several folders, with
///   merge_folders. Pictures (see decode_image) by file name. With a metadata.csv or metadata.jsonl
///   (in it or below) that has the column `label_column`, the classes are those of its rows, and
///   every image must have one.
/// - tar, zip: archives of such a tree. They may be several: a folder of them, or a pattern
///   ("shards/{000..003}.tar", "shards/*.tar").
/// - WebDataset, packed or not: the class of KEY.png in KEY.cls, or in the member `label_column` of
///   the object in KEY.json; the key goes to the first dot. Outside of tars KEY.json counts where
///   the images lie in no class folder, or where `label_column` is not the default; then KEY.cls
///   does not count.
/// - npz, npy: numpy arrays of uint8 images, [N, H, W] or [N, H, W, 1 or 3], with labels [N] or
///   [N, 1], integers or text: MedMNIST's train_images and train_labels, Keras' x_train and
///   y_train, numpy.savez(images=..., labels=...).
/// - idx: an IDX file of uint8 images, [N, H, W] or [N, H, W, 1 or 3], plain or gz, with an IDX
///   file of integer labels.
/// - cifar: CIFAR-10 or CIFAR-100 binary (3073 or 3074 bytes per record; the fine label), one .bin
///   file or a folder of them; in a folder test_batch.bin and test.bin are left out.
/// - corpus (found by itself, by lineage.json, also where `format` is folder or tar): what `sfumato
///   sample` made, a folder of images or of shards, or some of the shards; its classes are those of
///   its lineage.
///
/// Several splits (train/, test/, or their like in an archive, at any depth) are not mixed: an
/// error lists them, and `source` names one. What systems leave in folders (__MACOSX, .DS_Store,
/// Thumbs.db, ...) is passed over without a word, other files that are no images are counted by
/// extension. A label that all files give as a whole number is that number; otherwise it is a name.
/// A number is a place in class_names, unless a name there is a number other than its own place:
/// then numbers are names, in every format.
///
/// Images are decoded, brought to `channels`, centre-cropped and resized; nothing else of a file
/// survives. The order of records is that of the source (folders in byte order of names), whatever
/// the number of threads. Memory: a bounded number of images in flight, 36 to 72 bytes per image
/// for de-duplication, and with users about 40 bytes per line of the CSV.
///
/// De-duplication drops an image whose prepared pixels and label (and user, where users are known)
/// equal those of an earlier one. It is stable: taking one image, or one user, out of the source
/// changes the store by no more than that image's or user's records. Dropping also equal pixels
/// with another label would not be (removing the first would bring the second in), hence these
/// stay, are counted, and each is an image of its own to the guarantee.
///
/// Pictures with 16-bit samples come to 8 by their upper bits, or from depth_range. Where the upper
/// bits are kept nobody has said what the lower ones are worth, so such pictures are duplicates
/// only if all 16-bit samples within the centred square are equal, too; those that differ there and
/// yet give the same record are kept and counted. With depth_range, what is stored is compared.
/// Either rule looks at two pictures alone, so it is stable as well.
///
/// A picture that the decoder had to mend (libjpeg fills lost or changed data) is unreadable unless
/// keep_damaged.
///
/// With users, at most records_per_user images of each are kept: those with the smallest HMAC of
/// their name under a secret key, so the choice depends neither on order nor on other users. The
/// CSV names files relative to the source, of several tar archives as "ARCHIVE.tar/MEMBER"; IDX and
/// numpy images are "0", "1", ..., CIFAR's "FILE.bin:0", ...
///
/// With holdout, users (without users: images, by name) that is_held_out() picks go to a second
/// store, holdout_store(), of the same layout. Each side is de-duplicated by itself, so that no
/// held-out image changes what training reads. Images that are called by their place (IDX, numpy,
/// CIFAR) would change sides where one is added or removed before them: PrivacyError for that
/// adjacency, unless users decide.
///
/// Labels are positions in `class_names`, a public list, and nothing else: what the source holds
/// decides no label, so that no image, not even the only one of a class, changes that of another. A
/// class of the source that is not in the list is an error; one of the list that the source lacks
/// is not. A class without a record is an error for the holder, before anything is released; both
/// must stay with the holder, because they tell of single images.
///
/// UsageError: impossible options, the store exists, the source has several folders, which may be
/// classes, and neither num_classes nor merge_folders says what they are, or the source names its
/// classes and class_names is empty (the message proposes a list). DataError: no images, an
/// unreadable image (unless skip_unreadable), a label outside 0..num_classes-1, a class that is not
/// in class_names or has no record (unless in allow_empty_classes) or a name that is not UTF-8, an
/// image that the CSV does not name, a file in it that is no image of the source, a damaged
/// archive. Interrupted: a stop signal; nothing is left behind.
PrepareReport prepare(const PrepareOptions& options);

nlohmann::json to_json(const PrepareReport& report);

/// PrepareReport::kept_by_bound in words: "1 keeps 60 of 600 (540 dropped), 2: 118 (482 dropped)".
/// Private, as every count.
std::string kept_by_bound_text(const std::vector<KeptByBound>& rows);

/// PrepareReport::unread_files in words: "3 .webp, 1 (hidden)".
std::string unread_files_text(const std::map<std::string, std::int64_t>& by_extension);

}  // namespace sfumato
