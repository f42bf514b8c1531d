#include "sfumato/evaluate/evaluation_report.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "evaluate/report_parts.h"
#include "sfumato/core/bound_text.h"
#include "sfumato/core/text.h"
#include "sfumato/report/privacy_card.h"

namespace sfumato {
namespace {

using Json = nlohmann::ordered_json;

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

std::string status_name(ReferenceStatus status) {
  switch (status) {
    case ReferenceStatus::kPrivate: return "private";
    case ReferenceStatus::kDeclaredPublic: return "declared_public";
    case ReferenceStatus::kReleasedWithNoise: return "released_with_noise";
  }
  return {};
}

Json privacy_json(const Evaluation& evaluation) {
  Json out{{"status", status_name(evaluation.status)},
           {"statement", privacy_statement(evaluation)}};
  if (!evaluation.noise) return out;
  const NoiseStatement& noise = *evaluation.noise;
  Json stages = Json::array();
  for (const NoisyStage& stage : noise.stages)
    stages.push_back({{"stage", stage.name},
                      {"noise_stddev", stage.noise_stddev},
                      {"expected_records", stage.expected_records}});
  out.update(Json{{"stages", std::move(stages)},
                  {"tested_on", noise.tested_on},
                  {"epsilon", noise.claim_stands ? number(noise.epsilon) : Json(nullptr)},
                  {"delta", noise.delta},
                  {"unit", noise.unit},
                  {"adjacency", noise.adjacency},
                  {"accountant", noise.accountant}});
  return out;
}

std::string noise_statement(const NoiseStatement& noise) {
  std::string what;
  for (const NoisyStage& stage : noise.stages)
    what += (what.empty() ? "" : ". Also: ") + stage.statement;
  if (!noise.claim_stands)
    return fmt::format("VOID: {}. The noise came from a test key and protects nobody.", what);
  return fmt::format(
      "Released with noise: {}. {} of the run's mechanism, charged in its ledger: all that the run "
      "released, these numbers included, is ({}, {})-differentially private for {} ({}, {}). They "
      "may be shown, if nothing that they hang on was chosen by exact numbers of these images: "
      "neither corpus (nor how many of its images, --count) nor classifiers, repeats and seed, nor "
      "features and their dimension, nor a divisor.",
      what, noise.stages.size() == 1 ? "It is a stage" : "They are stages",
      epsilon_text(noise.epsilon), noise.delta, noise.unit, noise.adjacency, noise.accountant);
}

Json set_json(const ReportedSet& set) {
  Json out{{"name", set.name},
           {"images", set.found},
           {"images_used", set.used},
           {"identity", set.identity},
           {"split", set.split}};
  if (!set.claim.empty()) out["privacy"] = set.claim;
  if (!set.alarm.empty()) out["privacy_alarm"] = set.alarm;
  return out;
}

Json measurement_json(const Measurement& one) {
  return {{"key", one.key},
          {"title", one.title},
          {"value", number(one.value)},
          {"std", number(one.std)},
          {"better", one.smaller_is_better ? "smaller" : "larger"},
          {"corpus_images", one.corpus_images},
          {"reference_images", one.reference_images},
          {"reference_split", one.split},
          {"network", one.network},
          {"preprocessing", one.preprocessing},
          {"weights_sha256", one.weights_sha256},
          {"detail", one.detail}};
}

Json class_json(const ClassRow& row) {
  return {{"name", row.name},
          {"corpus_images", row.corpus_images},
          {"reference_images", row.reference_images},
          {"frechet_distance", number(row.frechet_distance)},
          {"fewer_images_than_dimensions", row.fewer_than_dimensions},
          {"accuracy", number(row.accuracy)},
          {"real_accuracy", number(row.real_accuracy)},
          {"label_fidelity", number(row.label_fidelity)}};
}

constexpr const char* kNoCardOfImages =
    "Nothing is claimed about privacy: no privacy card lies beside these images, or beside the "
    "weights that made them. Where those were trained on private images this says that nothing "
    "protects them.";

std::string escaped_cell(std::string text) {
  std::string out;
  for (const char c : text) {
    if (c == '|') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out;
}

std::string set_line(const char* what, const ReportedSet& set) {
  std::string line = fmt::format("{}: {}, {} images", what, set.name, set.found);
  if (set.used != set.found) line += fmt::format(", {} of them used", set.used);
  if (set.split != "not said") line += ", split " + set.split;
  return line + fmt::format(" ({})", set.identity);
}

}  // namespace

ReportedSet reported(const ImageSet& set) {
  ReportedSet out{set.name, set.identity, set.split, set.found, set.images.count(), {}, {}, false};
  const CardBanner banner = card_banner(set.card);
  out.claim = banner.headline;
  if (banner.banner == ReportBanner::kNoClaim) out.no_claim = true, out.claim = kNoCardOfImages;
  if (banner.banner == ReportBanner::kVoid) out.alarm = "VOID";
  if (banner.banner == ReportBanner::kNotPrivate) out.alarm = "NOT PRIVATE";
  return out;
}

std::string privacy_statement(const Evaluation& evaluation) {
  if (evaluation.noise) return noise_statement(*evaluation.noise);
  if (evaluation.status == ReferenceStatus::kDeclaredPublic)
    return "The reference was declared public (--reference-is-public), on the user's word alone: "
           "these numbers may be shown. They were not released with noise.";
  return "PRIVATE: these numbers tell of private reference images. They were neither noised nor "
         "charged to a budget, so they stay with the images' holder, and no choice may rest on "
         "them whose result leaves. (An accuracy and a distance that may leave are released with "
         "noise: --release-with-noise RUN.)";
}

Json to_json(const Evaluation& evaluation, const ReportedSet& corpus,
             const ReportedSet& reference) {
  Json out{{"reference_privacy", privacy_json(evaluation)},
           {"corpus", set_json(corpus)},
           {"reference", set_json(reference)}};
  out["reference"].erase("privacy");
  out["reference"].erase("privacy_alarm");
  Json all = Json::array(), classes = Json::array();
  for (const Measurement& one : evaluation.measurements) {
    if (!out.contains(one.key)) out[one.key] = number(one.value);
    all.push_back(measurement_json(one));
  }
  for (const ClassRow& row : evaluation.classes) classes.push_back(class_json(row));
  out["measurements"] = std::move(all);
  out["classes"] = std::move(classes);
  out["left_out"] = evaluation.left_out;
  out["warnings"] = evaluation.warnings;
  return out;
}

std::string evaluation_markdown(const Evaluation& evaluation, const ReportedSet& corpus,
                                const ReportedSet& reference) {
  std::string out =
      fmt::format("# Evaluation of {}\n\n**{}**\n\n", corpus.name, privacy_statement(evaluation));
  if (!corpus.alarm.empty())
    out += fmt::format("**{}**: {}\n\n", corpus.alarm, corpus.claim);
  else if (corpus.no_claim)
    out += fmt::format("**NO CLAIM**: {}\n\n", corpus.claim);
  else if (!corpus.claim.empty())
    out += fmt::format("The corpus: {}\n\n", corpus.claim);
  out +=
      fmt::format("- {}\n- {}\n\n", set_line("Corpus", corpus), set_line("Reference", reference));
  out +=
      "| what | value | N corpus | N reference | split | network | pre-processing | weights | "
      "remarks |\n|---|---|---|---|---|---|---|---|---|\n";
  for (const Measurement& one : evaluation.measurements)
    out += fmt::format("| {} | {} | {} | {} | {} | {} | {} | {} | {} |\n", escaped_cell(one.title),
                       value_text(one), one.corpus_images, one.reference_images,
                       escaped_cell(one.split), escaped_cell(one.network),
                       escaped_cell(one.preprocessing), escaped_cell(one.weights_sha256),
                       escaped_cell(one.detail));
  if (!evaluation.classes.empty()) {
    out +=
        "\n| class | N corpus | N reference | distance | accuracy | ceiling | label fidelity |\n"
        "|---|---|---|---|---|---|---|\n";
    for (const ClassRow& row : evaluation.classes)
      out += fmt::format(
          "| {} | {} | {} | {}{} | {} | {} | {} |\n", escaped_cell(row.name), row.corpus_images,
          row.reference_images, number_text(row.frechet_distance),
          row.fewer_than_dimensions && !std::isnan(row.frechet_distance) ? " (N < d)" : "",
          number_text(row.accuracy), number_text(row.real_accuracy),
          number_text(row.label_fidelity));
  }
  for (const std::string& text : evaluation.left_out)
    out += fmt::format("\n- Not measured: {}", text);
  for (const std::string& text : evaluation.warnings) out += fmt::format("\n- Warning: {}", text);
  out += "\n\nNumbers are comparable only where everything in their row but the value is equal.\n";
  return out;
}

}  // namespace sfumato
