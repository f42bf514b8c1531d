#include "sfumato/audit/replication_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <span>

#include "audit/rate_text.h"
#include "sfumato/core/text.h"
#include "sfumato/data/record_store.h"
#include "sfumato/features/corpus_images.h"
#include "sfumato/report/base64.h"
#include "sfumato/report/html_report.h"

namespace sfumato {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kHeuristics =
    "Heuristics, no evidence of differential privacy: a copy that these features do not recognise "
    "goes unseen, and finding none proves nothing. The report tells about private images; it stays "
    "with their holder.";
constexpr const char* kReplicationNotes[] = {
    "distance: from a synthetic image to its nearest private record. ratio: that distance over the "
    "mean of the next 50, which is small where one record stands out, simple motif or not.",
    "The null holds the same numbers for real images that are not among the records. Copies lie "
    "below the value that at most 0.1 % of the null lie below, so a few are expected by chance.",
    "Z is Mann and Whitney's, negative where synthetic images come nearer to the records than real "
    "ones do; p is its one-sided normal tail. Both suppose that images are independent of one "
    "another.",
    "authentic: images that lie farther from their nearest record than that record from its own. "
    "Compare it with the same share of the null.",
    "pixels see every change of brightness, contrast or place; convolution features are random, "
    "see neither brightness nor contrast, and do not recognise mirrored or redrawn content."};

Json comparison_json(const NullComparison& comparison) {
  return {{"mann_whitney_z", comparison.z},
          {"p_value", comparison.p_value},
          {"copy_threshold", comparison.threshold},
          {"copies", rate_json(comparison.copies)},
          {"expected_share", comparison.expected_share}};
}

std::string null_name(const ReplicationAudit& audit) {
  return audit.has_holdout ? "the holdout" : "records against the other records";
}

Image picture_of(const RecordStore& store, int64_t record) {
  const auto pixels = store.pixels(record);
  return {store.height(), store.width(), store.channels(), {pixels.begin(), pixels.end()}};
}

std::string figure(const std::string& png, const std::string& alt) {
  return fmt::format(
      "<img alt=\"{}\" width=\"64\" style=\"image-rendering:pixelated\" "
      "src=\"data:image/png;base64,{}\">",
      html_escape(alt), base64(std::as_bytes(std::span(png.data(), png.size()))));
}

std::string comparison_rows(const ReplicationResult& result) {
  std::string rows;
  for (const auto& [name, comparison] :
       {std::pair{"distance", &result.by_distance}, std::pair{"ratio", &result.by_ratio}})
    rows += fmt::format(
        "<tr><td>{}</td><td>{:.2f}</td><td>{:.2g}</td><td>{:.4g}</td><td>{}</td><td>{}</td></tr>\n",
        name, comparison->z, comparison->p_value, comparison->threshold,
        rate_text(comparison->copies), percent(comparison->expected_share));
  return rows;
}

std::string image_rows(const ReplicationAudit& audit, const ReplicationResult& result,
                       const std::vector<PicturePair>& pictures) {
  std::string rows;
  const auto shown = nearest_images(result, kShownImages);
  for (std::size_t i = 0; i < shown.size(); ++i) {
    const NearestRecord& nearest = result.synthetic[shown[i]];
    std::string pair;
    if (i < pictures.size())
      pair = figure(pictures[i].synthetic_png, audit.names[shown[i]]) + " " +
             figure(pictures[i].record_png, fmt::format("record {}", nearest.record)) + "<br>";
    rows +=
        fmt::format("<tr><td>{}{}</td><td>{}</td><td>{:.4g}</td><td>{:.4f}</td><td>{}</td></tr>\n",
                    pair, html_escape(audit.names[shown[i]]), nearest.record, nearest.distance,
                    nearest.ratio, result.is_copy(shown[i]) ? "<strong>yes</strong>" : "no");
  }
  return rows;
}

std::string section_of(const ReplicationAudit& audit, const ReplicationResult& result,
                       const std::vector<PicturePair>& pictures) {
  return fmt::format(
      "<section>\n<h2>By {}</h2>\n<p>{} synthetic images and a null of {} ({}), against {} "
      "records. Authentic: {}; of the null {}.</p>\n<table>\n<thead><tr><th>measure</th>"
      "<th>Z</th><th>p</th><th>copies below</th><th>copies (95 %)</th><th>expected</th></tr>"
      "</thead>\n<tbody>\n{}</tbody>\n</table>\n<h2>Nearest by {}</h2>\n<table>\n<thead><tr>"
      "<th>synthetic image</th><th>record</th><th>distance</th><th>ratio</th><th>below a "
      "threshold</th></tr></thead>\n<tbody>\n{}</tbody>\n</table>\n</section>\n",
      to_string(result.space), result.synthetic.size(), result.null.size(), null_name(audit),
      audit.records, rate_text(result.authentic), rate_text(result.null_authentic),
      comparison_rows(result), to_string(result.space), image_rows(audit, result, pictures));
}

}  // namespace

std::vector<std::size_t> nearest_images(const ReplicationResult& result, std::size_t count) {
  std::vector<std::size_t> order(result.synthetic.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return result.synthetic[a].ratio < result.synthetic[b].ratio;
  });
  order.resize(std::min(order.size(), count));
  return order;
}

std::vector<PicturePair> picture_pairs(const ReplicationAudit& audit,
                                       const ReplicationResult& result,
                                       const std::vector<std::size_t>& images,
                                       const std::filesystem::path& corpus,
                                       const RecordStore& store, int64_t count) {
  std::map<std::string, std::size_t> wanted;
  std::vector<PicturePair> pairs(images.size());
  for (std::size_t i = 0; i < images.size(); ++i) {
    wanted.emplace(audit.names[images[i]], i);
    pairs[i].record_png = encode_png(picture_of(store, result.synthetic[images[i]].record));
  }
  CorpusImages pictures(corpus, count);
  while (!wanted.empty() && pictures.next()) {
    const auto found = wanted.find(pictures.name());
    if (found == wanted.end()) continue;
    pairs[found->second].synthetic_png =
        encode_png(to_channels(pictures.image(), store.channels()));
    wanted.erase(found);
  }
  return pairs;
}

Json to_json(const ReplicationAudit& audit) {
  Json out{
      {"corpus", audit.corpus},       {"records", audit.records},
      {"images", audit.names.size()}, {"null", audit.has_holdout ? "holdout" : "leave_one_out"},
      {"note", kHeuristics},          {"features", Json::array()},
      {"warnings", audit.warnings}};
  for (const ReplicationResult& result : audit.results) {
    int64_t copies = 0;
    for (std::size_t i = 0; i < result.synthetic.size(); ++i) copies += result.is_copy(i) ? 1 : 0;
    out["features"].push_back({{"features", to_string(result.space)},
                               {"null_images", result.null.size()},
                               {"null_in_store", result.null_in_store},
                               {"by_distance", comparison_json(result.by_distance)},
                               {"by_ratio", comparison_json(result.by_ratio)},
                               {"copies", copies},
                               {"authentic", rate_json(result.authentic)},
                               {"null_authentic", rate_json(result.null_authentic)}});
  }
  return out;
}

std::string replication_text(const ReplicationAudit& audit) {
  std::string out = fmt::format("{} synthetic images, {} records, null: {}\n", audit.names.size(),
                                audit.records, null_name(audit));
  out += fmt::format("{:<13}{:<10}{:>8} {:>9}  {:<32}{:>9}\n", "features", "measure", "Z", "p",
                     "copies (95 %)", "expected");
  for (const ReplicationResult& result : audit.results) {
    for (const auto& [name, comparison] :
         {std::pair{"distance", &result.by_distance}, std::pair{"ratio", &result.by_ratio}})
      out += fmt::format("{:<13}{:<10}{:>8.2f} {:>9.2g}  {:<32}{:>9}\n", to_string(result.space),
                         name, comparison->z, comparison->p_value, rate_text(comparison->copies),
                         percent(comparison->expected_share));
    out += fmt::format("{:<13}authentic {}; of the null {}\n", to_string(result.space),
                       percent(result.authentic.value), percent(result.null_authentic.value));
  }
  return out + kHeuristics + "\n";
}

std::string replication_html(const ReplicationAudit& audit,
                             const std::vector<std::vector<PicturePair>>& pictures) {
  std::string body =
      fmt::format("<div class=\"banner private\"><p>{}</p></div>\n", html_escape(kHeuristics));
  std::string items;
  for (const std::string& warning : audit.warnings)
    items += fmt::format("<li>{}</li>\n", html_escape(warning));
  if (!items.empty())
    body += fmt::format("<section>\n<h2>Warnings</h2>\n<ul>\n{}</ul>\n</section>\n", items);
  for (std::size_t i = 0; i < audit.results.size(); ++i)
    body += section_of(audit, audit.results[i],
                       i < pictures.size() ? pictures[i] : std::vector<PicturePair>());
  items.clear();
  for (const char* note : kReplicationNotes)
    items += fmt::format("<li>{}</li>\n", html_escape(note));
  body += fmt::format("<section>\n<h2>How to read this</h2>\n<ul>\n{}</ul>\n</section>\n", items);
  return html_page("Replication in " + audit.corpus, body);
}

std::string replication_csv(const ReplicationAudit& audit) {
  std::string out = "features,image,record,distance,ratio,copy\n";
  for (const ReplicationResult& result : audit.results)
    for (std::size_t i = 0; i < result.synthetic.size(); ++i) {
      const NearestRecord& nearest = result.synthetic[i];
      out +=
          fmt::format("{},{},{},{:.9g},{:.9g},{}\n", to_string(result.space), audit.names[i],
                      nearest.record, nearest.distance, nearest.ratio, result.is_copy(i) ? 1 : 0);
    }
  return out;
}

}  // namespace sfumato
