#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "sfumato/core/error.h"
#include "sfumato/evaluate/evaluation.h"

namespace sfumato {
namespace {

/// What other programs call metrics, or a number of one.
constexpr std::array<std::pair<std::string_view, Metric>, 15> kFamiliar = {{
    {"fd", Metric::kFrechetDistance},
    {"frechet", Metric::kFrechetDistance},
    {"kid_mean", Metric::kKid},
    {"mmd", Metric::kKid},
    {"is", Metric::kInceptionScore},
    {"isc", Metric::kInceptionScore},
    {"inception_score_mean", Metric::kInceptionScore},
    {"prdc", Metric::kPrecisionRecall},
    {"pr", Metric::kPrecisionRecall},
    {"prc", Metric::kPrecisionRecall},
    {"precision", Metric::kPrecisionRecall},
    {"recall", Metric::kPrecisionRecall},
    {"density", Metric::kPrecisionRecall},
    {"coverage", Metric::kPrecisionRecall},
    {"class_fd", Metric::kClassFrechetDistance},
}};

/// A FID of other features would be taken for one.
Metric fid(const std::vector<std::string>& networks) {
  if (!networks.empty() && std::ranges::all_of(networks, [](const std::string& network) {
        return network.starts_with("inception");
      }))
    return Metric::kFrechetDistance;
  throw UsageError(
      "metric 'fid' is frechet_distance here: by other features than Inception's it is no FID, and "
      "is named after them; ask for --metrics frechet_distance, or for FID itself with --features "
      "inception and its --weights");
}

}  // namespace

std::vector<Metric> metrics_of(const std::vector<std::string>& names,
                               const std::vector<std::string>& networks) {
  std::vector<Metric> metrics;
  for (const std::string& name : names) {
    const auto found = std::ranges::find(kFamiliar, std::string_view(name),
                                         &decltype(kFamiliar)::value_type::first);
    metrics.push_back(found != kFamiliar.end() ? found->second
                      : name == "fid"          ? fid(networks)
                                               : parse_enum<Metric>(name));
  }
  return metrics;
}

}  // namespace sfumato
