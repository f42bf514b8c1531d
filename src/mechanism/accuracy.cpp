#include "sfumato/mechanism/accuracy.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "sfumato/core/error.h"
#include "sfumato/mechanism/stage.h"

namespace sfumato {
namespace {

constexpr int kAccuracySchema = 1;

/// How many classifiers a stage of this bound was frozen for.
std::int64_t frozen_classifiers(const StagePlan& stage) {
  return std::llround(stage.clip_norm_l2 * stage.clip_norm_l2);
}

}  // namespace

double norm_of_answers(std::int64_t classifiers) {
  return std::sqrt(static_cast<double>(classifiers));
}

StatisticSum count_right_answers(const StagePlan& stage, std::int64_t records,
                                 std::int64_t classifiers, const Answers& answers) {
  const std::int64_t most = frozen_classifiers(stage);
  (void)executed_release(stage, norm_of_answers(most),
                         "right answers are one release of every record, whose bound is a square "
                         "root");
  if (classifiers < 1 || classifiers > most)
    throw UsageError(
        fmt::format("{} classifiers were named, and the mechanism was frozen for {} "
                    "(mechanism.stages.accuracy.classifiers): name 1 to {} in --classifier",
                    classifiers, most, most));
  StatisticSum sum(1, classifiers, stage.clip_norm_l2, Contributions::kNonNegative);
  std::vector<float> right(static_cast<std::size_t>(classifiers));
  for (std::int64_t record = 0; record < records; ++record) {
    std::ranges::fill(right, 0.0F);
    answers(record, right);
    sum.add(0, right);
  }
  return sum;
}

nlohmann::ordered_json to_json(const NoisyAccuracy& accuracy) {
  nlohmann::ordered_json classifiers = nlohmann::ordered_json::array();
  for (const NoisyAnswers& one : accuracy.classifiers)
    classifiers.push_back({{"classifier", one.classifier},
                           {"detail", one.detail},
                           {"noisy_right_answers", one.noisy_right_answers},
                           {"accuracy", accuracy.accuracy(one)}});
  nlohmann::ordered_json json = release_json(accuracy, kAccuracySchema);
  json["repeats"] = accuracy.repeats;
  json["seed"] = accuracy.seed;
  json["classifiers"] = std::move(classifiers);
  return json;
}

NoisyAccuracy read_noisy_accuracy(const std::filesystem::path& file) {
  NoisyAccuracy out;
  read_release(file, kAccuracySchema, "accuracy", out, [&](const nlohmann::json& json) {
    json.at("repeats").get_to(out.repeats);
    json.at("seed").get_to(out.seed);
    for (const nlohmann::json& one : json.at("classifiers"))
      out.classifiers.push_back({one.at("classifier").get<std::string>(),
                                 one.at("detail").get<std::string>(),
                                 one.at("noisy_right_answers").get<double>()});
    if (out.classifiers.empty())
      throw DataError(fmt::format("'{}' holds no classifiers", file.string()));
  });
  return out;
}

Stage accuracy_stage() {
  return {
      .name = kAccuracyStage,
      .clip_norm_l2 =
          [](const Config& config) { return norm_of_answers(config.accuracy.classifiers()); },
      .contributions = Contributions::kNonNegative,
      .when = StageTime::kAfterRelease,
  };
}

}  // namespace sfumato
