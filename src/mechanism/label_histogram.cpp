#include "sfumato/mechanism/label_histogram.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "sfumato/core/error.h"
#include "sfumato/io/json_file.h"
#include "sfumato/mechanism/private_statistics.h"
#include "sfumato/mechanism/session.h"
#include "sfumato/mechanism/stage.h"

namespace sfumato {

LabelHistogram make_label_histogram(std::vector<double> noisy_counts, double noise_stddev) {
  LabelHistogram histogram{noise_stddev, std::move(noisy_counts), {}};
  double total = 0;
  for (const double count : histogram.noisy_counts) total += std::max(count, 0.0);
  for (const double count : histogram.noisy_counts)
    histogram.proportions.push_back(total > 0
                                        ? std::max(count, 0.0) / total
                                        : 1.0 / static_cast<double>(histogram.noisy_counts.size()));
  return histogram;
}

nlohmann::ordered_json to_json(const LabelHistogram& histogram) {
  return {{"schema_version", 1},
          {"noise_stddev", histogram.noise_stddev},
          {"noisy_counts", histogram.noisy_counts},
          {"proportions", histogram.proportions}};
}

LabelHistogram release_label_histogram(const RecordStore& store, const StagePlan& stage,
                                       MechanismSession& session) {
  const Phase phase =
      executed_release(stage, 1, "a label histogram is one release that counts every record once");
  StatisticSum counts(std::max<std::int64_t>(store.num_classes(), 1), 1, stage.clip_norm_l2,
                      Contributions::kNonNegative);
  const float one = 1;
  for (std::int64_t i = 0; i < store.count(); ++i) counts.add(store.label(i), {&one, 1});
  return make_label_histogram(session.release(std::move(counts), stage),
                              phase.noise_multiplier * stage.clip_norm_l2);
}

Stage label_histogram_stage() {
  return {
      .name = "label_histogram",
      .clip_norm_l2 = [](const Config&) { return 1.0; },
      .contributions = Contributions::kNonNegative,
      .run =
          [](const StageRun& run, const std::filesystem::path& file) {
            write_json_atomic(file,
                              to_json(release_label_histogram(run.store, run.plan, run.session)));
          },
  };
}

}  // namespace sfumato
