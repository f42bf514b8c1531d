#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "sfumato/core/error.h"
#include "sfumato/evaluate/evaluation.h"

namespace sfumato {
namespace {

/// What other programs call metrics, or a number of one.
constexpr std::array<std::pair<std::string_view, Metric>, 16> kFamiliar = {{
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
    {"class_frechet", Metric::kClassFrechetDistance},
}};

std::string in_lower_case(std::string name) {
  for (char& c : name)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return name;
}

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
  for (const std::string& asked : names) {
    const std::string name = in_lower_case(asked);
    const auto found = std::ranges::find(kFamiliar, std::string_view(name),
                                         &decltype(kFamiliar)::value_type::first);
    metrics.push_back(found != kFamiliar.end() ? found->second
                      : name == "fid"          ? fid(networks)
                                               : parse_enum<Metric>(name));
  }
  return metrics;
}

std::vector<ClassifierKind> classifiers_of(const std::vector<std::string>& names) {
  std::vector<ClassifierKind> kinds;
  for (const std::string& name : names) {
    const auto kind = parse_enum<ClassifierKind>(name);
    if (std::ranges::find(kinds, kind) != kinds.end())
      throw UsageError(fmt::format(
          "classifier '{}' is named twice; for several trainings of it, --repeats", name));
    kinds.push_back(kind);
  }
  return kinds;
}

}  // namespace sfumato
