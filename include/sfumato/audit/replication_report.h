#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "sfumato/audit/replication.h"

namespace sfumato {

/// One synthetic image beside the record that it comes nearest to. Both are PNG files.
struct PicturePair {
  std::string synthetic_png, record_png;
};

/// The synthetic images with the smallest ratio of one result, at most `count`, smallest first.
std::vector<std::size_t> nearest_images(const ReplicationResult& result, std::size_t count);
/// Their pictures, in the same order: reads the corpus once more.
std::vector<PicturePair> picture_pairs(const ReplicationAudit& audit,
                                       const ReplicationResult& result,
                                       const std::vector<std::size_t>& images,
                                       const std::filesystem::path& corpus,
                                       const RecordStore& store, int64_t count);

nlohmann::ordered_json to_json(const ReplicationAudit& audit);
/// A few lines for the terminal.
std::string replication_text(const ReplicationAudit& audit);
/// A self-contained page. `pictures`: for each result the pairs of its nearest images, or empty.
std::string replication_html(const ReplicationAudit& audit,
                             const std::vector<std::vector<PicturePair>>& pictures);
/// space,image,record,distance,ratio,copy; one line for each image and space.
std::string replication_csv(const ReplicationAudit& audit);

/// Rows of a result's table on the page.
inline constexpr std::size_t kShownImages = 24;

}  // namespace sfumato
