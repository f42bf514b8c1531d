#include "sfumato/data/source_look.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "class_names.h"
#include "image_source.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/printable.h"
#include "sfumato/io/image_codec.h"
#include "user_bound.h"

namespace sfumato {
namespace {

constexpr int kDecoded = 32;

PrepareOptions options_for(const std::filesystem::path& source, std::int64_t classes) {
  PrepareOptions options;
  options.source = source;
  options.image_size = 32;
  options.channels = 3;
  options.num_classes = classes;
  options.merge_folders = classes == 0;
  return options;
}

bool has_colours(const Image& image) {
  if (image.channels != 3) return false;
  for (std::size_t i = 0; i + 2 < image.pixels.size(); i += 3)
    if (image.pixels[i] != image.pixels[i + 1] || image.pixels[i] != image.pixels[i + 2])
      return true;
  return false;
}

void count(const PrepareOptions& options, FoundFormat format, SourceLook& look) {
  const auto names = make_source(options, format, SourcePass::kNames);
  look.class_names = proposed_order(names->classes_found());
  std::int64_t most = -1;
  std::set<std::string> seen;
  for (SourceItem item; names->next(item); item = {}) {
    ++look.images;
    if (item.class_name.empty())
      most = std::max(most, item.label);
    else
      seen.insert(item.class_name);
  }
  if (look.class_names.empty() && !seen.empty()) look.class_names.assign(seen.begin(), seen.end());
  if (look.class_names.empty() && options.num_classes > 0) look.numbered_classes = most + 1;
  look.unread_files = names->unread_files().total();
}

void decode_first(const PrepareOptions& options, FoundFormat format, SourceLook& look) {
  const auto images = make_source(options, format, SourcePass::kImages);
  SourceItem item;
  for (int i = 0; i < kDecoded && images->next(item); ++i, item = {}) {
    Image image = std::move(item.raw);
    try {
      if (image.pixels.empty())
        image = decode_image(item.file.empty() ? item.encoded : read_file(item.file), item.place,
                             DecodeOptions{})
                    .image;
    } catch (const DataError&) {  // prepare will name it
      continue;
    }
    const std::int64_t side = std::min(image.height, image.width);
    look.smallest_side = look.smallest_side == 0 ? side : std::min(look.smallest_side, side);
    if (has_colours(image)) look.channels = 3;
  }
}

}  // namespace

SourceLook look_at_source(const std::filesystem::path& source) {
  constexpr std::int64_t kSome = 1'000'000;  // as many classes as there may be
  SourceLook look;
  PrepareOptions options = options_for(source, kSome);
  const FoundFormat format = detect_format(options);
  look.format = name_of(format);
  try {
    count(options, format, look);
  } catch (const Error&) {  // no classes in it, or none that can be told
    look = SourceLook();
    look.format = name_of(format);
    options = options_for(source, 0);
    count(options, format, look);
  }
  if (look.images == 0)
    throw DataError(fmt::format(
        "no images in '{}' ({} other files); name a folder of pictures, a tar or zip of one, an "
        ".npz, an IDX or a CIFAR file",
        printable(source.string()), look.unread_files));
  decode_first(options, format, look);
  if (look.smallest_side == 0)
    throw DataError(
        fmt::format("none of the first images in '{}' is readable; `sfumato prepare --config FILE` "
                    "names the first that is not",
                    printable(source.string())));
  return look;
}

std::vector<KeptByBound> look_at_users(const std::filesystem::path& source,
                                       const std::filesystem::path& users) {
  const PrepareOptions options = options_for(source, 0);
  UserBound bound(users, 1, "");  // nothing is chosen by the key
  const auto names = make_source(options, detect_format(options), SourcePass::kNames);
  for (SourceItem item; names->next(item); item = {}) bound.admit_candidate(item.name);
  bound.check_complete();
  return bound.kept_by_bound();
}

}  // namespace sfumato
