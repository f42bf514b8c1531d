// What prepare tells the holder.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "depth_watch.h"
#include "sfumato/data/prepare.h"

namespace sfumato {

nlohmann::json depth_json(const DepthReport& depth) {
  return {{"images", depth.images},
          {"min", depth.min},
          {"max", depth.max},
          {"dark", depth.dark},
          {"equal_at_8_bits", depth.equal_at_8_bits}};
}

std::string kept_by_bound_text(const std::vector<KeptByBound>& rows) {
  std::string text;
  for (const KeptByBound& row : rows) {
    const std::int64_t all = rows.back().images;
    text += fmt::format("{}{}{} {}{}{}", text.empty() ? "" : ", ", row.records_per_user,
                        text.empty() ? " keeps" : ":", row.images,
                        text.empty() ? fmt::format(" of {}", all) : "",
                        row.images < all ? fmt::format(" ({} dropped)", all - row.images) : "");
  }
  return text;
}

nlohmann::json to_json(const PrepareReport& report) {
  nlohmann::json bounds = nlohmann::json::array();
  for (const KeptByBound& row : report.kept_by_bound)
    bounds.push_back({{"records_per_user", row.records_per_user}, {"images", row.images}});
  return {{"found", report.found},
          {"kept", report.kept},
          {"held_out", report.held_out},
          {"duplicates", report.duplicates},
          {"label_conflicts", report.label_conflicts},
          {"unreadable", report.unreadable},
          {"damaged_skipped", report.damaged_skipped},
          {"damaged_kept", report.damaged_kept},
          {"depth", depth_json(report.depth)},
          {"over_user_bound", report.over_user_bound},
          {"other_files", report.other_files},
          {"unread_files", report.unread_files},
          {"users", report.users},
          {"users_held_out", report.users_held_out},
          {"users_alike", report.users_alike},
          {"kept_by_bound", bounds},
          {"format", report.format},
          {"class_names", report.class_names},
          {"class_names_from", report.class_names_from},
          {"unit", report.unit},
          {"manifest_hash", report.manifest_hash},
          {"seconds", report.seconds}};
}

}  // namespace sfumato
