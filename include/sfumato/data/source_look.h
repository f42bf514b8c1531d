#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "sfumato/data/prepare.h"

namespace sfumato {

/// What private images look like, for their holder, who decides what of it is public.
struct SourceLook {
  std::string format;                    ///< "folder", "tar", ...
  std::int64_t images = 0;               ///< exact, and private
  std::vector<std::string> class_names;  ///< proposed order; empty: none are found
  std::int64_t numbered_classes = 0;     ///< where labels are numbers: the largest and one more
  std::int64_t smallest_side = 0;        ///< of the first images
  std::int64_t channels = 1;             ///< 3 if one of them has colours
  std::int64_t unread_files = 0;         ///< that are no images by name
};

/// Goes through the names of `source`, as `prepare` reads it, and decodes its first 32 images.
/// DataError as prepare, also where there is no image.
SourceLook look_at_source(const std::filesystem::path& source);

/// PrepareReport::kept_by_bound of a source and its users' file, by names alone. DataError as
/// prepare, also where the file and the source do not name the same images.
std::vector<KeptByBound> look_at_users(const std::filesystem::path& source,
                                       const std::filesystem::path& users);

}  // namespace sfumato
