#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <span>

#include "evaluate/report_parts.h"
#include "sfumato/core/text.h"
#include "sfumato/corpus/contact_sheet.h"
#include "sfumato/evaluate/evaluation_report.h"
#include "sfumato/io/image_codec.h"
#include "sfumato/report/base64.h"
#include "sfumato/report/html_report.h"
#include "sfumato/report/svg_plot.h"

namespace sfumato {
namespace {

/// Beside the style of all pages, which may not change (html_report.cpp).
constexpr const char* kTableStyle = R"(<style>
table.wide { display: block; overflow-x: auto; }
table.wide th { width: auto; white-space: nowrap; }
table.wide th, table.wide td { padding: .4rem .6rem; }
caption { text-align: left; padding: .75rem .6rem .5rem; color: var(--soft); font-size: .9rem;
          overflow-wrap: anywhere; }
</style>
)";

constexpr const char* kEvaluationNotes[] = {
    "Numbers are comparable only where network, weights, pre-processing, the split and both N are "
    "equal. A distance is named after its network; FID is that of Inception alone.",
    "precision: share of the corpus' images inside the balls of the reference; recall: the other "
    "way "
    "round. Radii reach to the k-th nearest other image of the same set.",
    "density counts the balls of the reference around an image of the corpus, coverage the "
    "reference's balls that hold one. A collapsed generator has high precision and low coverage.",
    "accuracy: of a network that is trained on the corpus alone, its epoch too chosen by the "
    "corpus, on real images. The ceiling is that of the same network trained on real images.",
    "label fidelity: accuracy, on the corpus, of the network trained on real images.",
    "A noisy distance, where there is one, is of features that were projected and clipped, and "
    "noise "
    "pushes it upwards: compare it with what the noise alone gives, and with no distance without "
    "noise."};

std::string list_section(const char* title, const std::vector<std::string>& texts) {
  if (texts.empty()) return {};
  std::string items;
  for (const std::string& text : texts) items += fmt::format("<li>{}</li>\n", html_escape(text));
  return fmt::format("<section>\n<h2>{}</h2>\n<ul>\n{}</ul>\n</section>\n", title, items);
}

/// Whether nothing protects what these numbers tell of private images.
bool says_alarm(const Evaluation& evaluation) {
  return evaluation.status == ReferenceStatus::kPrivate ||
         (evaluation.noise && !evaluation.noise->claim_stands);
}

std::string banners(const Evaluation& evaluation, const ReportedSet& corpus) {
  std::string out = fmt::format("<div class=\"banner {}\"><p>{}</p></div>\n",
                                says_alarm(evaluation) ? "alarm" : "private",
                                html_escape(privacy_statement(evaluation)));
  if (!corpus.alarm.empty())
    out += fmt::format(
        "<div class=\"banner alarm\" role=\"alert\"><strong>{}</strong><p>The corpus: "
        "{}</p></div>\n",
        html_escape(corpus.alarm), html_escape(corpus.claim));
  else if (corpus.no_claim)
    out +=
        fmt::format("<div class=\"banner\"><strong>NO CLAIM</strong><p>The corpus: {}</p></div>\n",
                    html_escape(corpus.claim));
  else if (!corpus.claim.empty())
    out += fmt::format("<div class=\"banner private\"><p>The corpus: {}</p></div>\n",
                       html_escape(corpus.claim));
  return out;
}

std::string set_row(const char* what, const ReportedSet& set) {
  return fmt::format(
      "<tr><th scope=\"row\">{}</th><td>{}: {} images, {} used, split: {}<br>{}</td></tr>\n", what,
      html_escape(set.name), set.found, set.used, html_escape(set.split),
      html_escape(set.identity));
}

/// What a remark is made of: "a; b; c".
std::vector<std::string> parts_of(const std::string& detail) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin < detail.size();) {
    const std::size_t end = std::min(detail.find("; ", begin), detail.size());
    parts.push_back(detail.substr(begin, end - begin));
    begin = end + 2;
  }
  return parts;
}

/// Numbers that are by one network, and what all of them share.
struct NumberGroup {
  std::vector<const Measurement*> rows;
  std::vector<std::string> shared;  ///< parts of the remarks of every row

  bool takes(const Measurement& one) const {
    const Measurement& first = *rows.front();
    return one.network == first.network && one.preprocessing == first.preprocessing &&
           one.weights_sha256 == first.weights_sha256;
  }
};

std::vector<NumberGroup> number_groups(const Evaluation& evaluation) {
  std::vector<NumberGroup> groups;
  for (const Measurement& one : evaluation.measurements) {
    if (one.key == "kid_std") continue;  // stands behind the mean
    const auto found =
        std::ranges::find_if(groups, [&](const NumberGroup& group) { return group.takes(one); });
    (found == groups.end() ? groups.emplace_back() : *found).rows.push_back(&one);
  }
  for (NumberGroup& group : groups) {
    if (group.rows.size() < 2) continue;
    for (const std::string& part : parts_of(group.rows.front()->detail))
      if (std::ranges::all_of(group.rows, [&](const Measurement* row) {
            const auto parts = parts_of(row->detail);
            return std::ranges::find(parts, part) != parts.end();
          }))
        group.shared.push_back(part);
  }
  return groups;
}

std::string number_row(const Measurement& one, const NumberGroup& group) {
  std::vector<std::string> own = parts_of(one.detail);
  std::erase_if(own, [&](const std::string& part) {
    return std::ranges::find(group.shared, part) != group.shared.end();
  });
  const auto count = [](int64_t images) { return images > 0 ? std::to_string(images) : "–"; };
  return fmt::format(
      "<tr><td>{}</td><td><strong>{}</strong></td><td>{} / {}</td><td>{}</td><td>{}</td></tr>\n",
      html_escape(one.title), value_text(one), count(one.corpus_images),
      count(one.reference_images), html_escape(one.split),
      html_escape(fmt::format("{}", fmt::join(own, "; "))));
}

/// What numbers share is said once, above them.
std::string numbers_section(const Evaluation& evaluation) {
  std::string out =
      "<section>\n<h2>Numbers</h2>\n<p>N: images of the corpus / of the reference.</p>\n";
  for (const NumberGroup& group : number_groups(evaluation)) {
    const Measurement& first = *group.rows.front();
    std::string rows;
    for (const Measurement* row : group.rows) rows += number_row(*row, group);
    out += fmt::format(
        "<table class=\"wide\">\n<caption><strong>{}</strong>; {}; weights {}{}{}</caption>\n"
        "<thead><tr><th>what</th><th>value</th><th>N</th><th>split</th><th>remarks</th></tr>"
        "</thead>\n<tbody>\n{}</tbody>\n</table>\n",
        html_escape(first.network), html_escape(first.preprocessing),
        html_escape(first.weights_sha256), group.shared.empty() ? "" : "; ",
        html_escape(fmt::format("{}", fmt::join(group.shared, "; "))), rows);
  }
  return out + "</section>\n";
}

std::string image_tag(const std::string& png, const std::string& alt, const char* style) {
  return fmt::format("<img alt=\"{}\" style=\"{}\" src=\"data:image/png;base64,{}\">",
                     html_escape(alt), style,
                     base64(std::as_bytes(std::span(png.data(), png.size()))));
}

std::string sheets_section(const EvaluationPictures& pictures, const ReportedSet& corpus,
                           const ReportedSet& reference) {
  if (pictures.corpus_sheet.empty()) return {};
  const auto figure = [](const std::string& png, const std::string& caption) {
    if (png.empty()) return std::string();
    return fmt::format("<figure>{}<figcaption>{}</figcaption></figure>\n",
                       image_tag(png, caption, "width:100%"), html_escape(caption));
  };
  return fmt::format(
      "<section>\n<h2>Pictures</h2>\n<div style=\"display:grid;gap:1rem;grid-template-columns:"
      "repeat(auto-fit,minmax(20rem,1fr))\">\n{}{}</div>\n</section>\n",
      figure(pictures.corpus_sheet, "corpus: " + corpus.name),
      figure(pictures.reference_sheet, "reference: " + reference.name));
}

struct Bar {
  std::string name;
  double value = 0;
};

/// Horizontal bars from 0 to `most`, as an SVG picture.
std::string bars_svg(const std::string& title, const std::vector<Bar>& bars, double most) {
  constexpr double kRow = 20, kLeft = 150, kWidth = 320, kRight = 70;
  std::string content;
  for (std::size_t i = 0; i < bars.size(); ++i) {
    const double top = kRow * static_cast<double>(i);
    const bool known = std::isfinite(bars[i].value);
    const double length =
        known && most > 0 ? kWidth * std::clamp(bars[i].value / most, 0.0, 1.0) : 0;
    content += fmt::format(
        "<text x=\"{:.0f}\" y=\"{:.0f}\" text-anchor=\"end\">{}</text>\n<rect x=\"{:.0f}\" "
        "y=\"{:.0f}\" width=\"{:.1f}\" height=\"13\" fill=\"#0072b2\"/>\n<text x=\"{:.1f}\" "
        "y=\"{:.0f}\">{}</text>\n",
        kLeft - 6, top + 14, html_escape(bars[i].name), kLeft, top + 4, length, kLeft + length + 5,
        top + 14, number_text(bars[i].value));
  }
  return fmt::format("<figure>{}<figcaption>{}</figcaption></figure>\n",
                     svg_picture(kLeft + kWidth + kRight,
                                 kRow * static_cast<double>(bars.size()) + 4, title, content),
                     html_escape(title));
}

std::string bars_of(const Evaluation& evaluation, const std::string& title,
                    double ClassRow::*member, bool share) {
  std::vector<Bar> bars;
  double most = share ? 1 : 0;
  for (const ClassRow& row : evaluation.classes) {
    bars.push_back({row.name, row.*member});
    if (std::isfinite(row.*member)) most = std::max(most, row.*member);
  }
  const bool any =
      std::ranges::any_of(bars, [](const Bar& bar) { return std::isfinite(bar.value); });
  return any ? bars_svg(title, bars, most) : std::string();
}

struct ClassColumn {
  const char* heading;
  double ClassRow::*value;
};

/// Columns of what was measured for some class.
std::vector<ClassColumn> class_columns(const Evaluation& evaluation) {
  std::vector<ClassColumn> columns = {{"distance", &ClassRow::frechet_distance},
                                      {"accuracy", &ClassRow::accuracy},
                                      {"ceiling", &ClassRow::real_accuracy},
                                      {"label fidelity", &ClassRow::label_fidelity}};
  std::erase_if(columns, [&](const ClassColumn& column) {
    return std::ranges::none_of(
        evaluation.classes, [&](const ClassRow& row) { return std::isfinite(row.*column.value); });
  });
  return columns;
}

std::string class_table(const Evaluation& evaluation) {
  const std::vector<ClassColumn> columns = class_columns(evaluation);
  std::string headings, rows;
  for (const ClassColumn& column : columns) headings += fmt::format("<th>{}</th>", column.heading);
  for (const ClassRow& row : evaluation.classes) {
    rows += fmt::format("<tr><td>{}</td><td>{} / {}</td>", html_escape(row.name), row.corpus_images,
                        row.reference_images);
    for (const ClassColumn& column : columns)
      rows += fmt::format("<td>{}{}</td>", number_text(row.*column.value),
                          column.value == &ClassRow::frechet_distance &&
                                  row.fewer_than_dimensions && std::isfinite(row.frechet_distance)
                              ? " (N &lt; d)"
                              : "");
    rows += "</tr>\n";
  }
  return fmt::format(
      "<table class=\"wide\">\n<thead><tr><th>class</th><th>N corpus / reference</th>{}</tr>"
      "</thead>\n<tbody>\n{}</tbody>\n</table>\n",
      headings, rows);
}

std::string classes_section(const Evaluation& evaluation) {
  if (evaluation.classes.empty()) return {};
  const std::string by = fmt::format(" ({})", evaluation.class_classifier);
  return fmt::format(
      "<section>\n<h2>Classes</h2>\n{}{}{}{}</section>\n",
      bars_of(evaluation, "Frechet distance by class, smaller is better",
              &ClassRow::frechet_distance, false),
      bars_of(evaluation, "accuracy by class, trained on the corpus" + by, &ClassRow::accuracy,
              true),
      bars_of(evaluation, "label fidelity by class" + by, &ClassRow::label_fidelity, true),
      class_table(evaluation));
}

std::string pairs_section(const Evaluation& evaluation, const EvaluationPictures& pictures) {
  if (pictures.pairs.empty()) return {};
  std::string cells;
  for (std::size_t i = 0; i < pictures.pairs.size(); ++i) {
    constexpr const char* kStyle = "width:4rem;image-rendering:pixelated";
    cells += fmt::format("<figure>{} {}<figcaption>{:.4g}</figcaption></figure>\n",
                         image_tag(pictures.pairs[i].first, "image of the corpus", kStyle),
                         image_tag(pictures.pairs[i].second, "nearest of the reference", kStyle),
                         evaluation.nearest[i].distance);
  }
  return fmt::format(
      "<section>\n<h2>Nearest pairs</h2>\n<p>Image of the corpus, nearest image of the reference, "
      "their distance. Whether the network copies is what <code>sfumato audit replication</code> "
      "asks.</p>\n<div style=\"display:flex;flex-wrap:wrap;gap:.5rem\">\n{}</div>\n</section>\n",
      cells);
}

Image picture_of(const LabelledImages& images, int64_t row) {
  const at::Tensor pixels = images.images.select(0, row).contiguous();
  const auto* first = pixels.const_data_ptr<std::uint8_t>();
  return {pixels.size(0), pixels.size(1), pixels.size(2), {first, first + pixels.numel()}};
}

std::string sheet_of(const LabelledImages& images) {
  std::vector<std::vector<int64_t>> rows_of(
      static_cast<std::size_t>(std::max<int64_t>(images.num_classes(), 1)));
  for (int64_t i = 0; i < images.count(); ++i) {
    const int64_t label = images.labels.defined() ? images.labels[i].item<int64_t>() : 0;
    auto& rows = rows_of[static_cast<std::size_t>(label)];
    if (std::ssize(rows) < 8 * kSheetColumns) rows.push_back(i);
  }
  std::vector<int64_t> counts;
  for (const auto& rows : rows_of) counts.push_back(std::ssize(rows));
  const int64_t side = std::max(images.shape().height, images.shape().width);
  const int64_t scale = contact_sheet_scale(side);
  std::vector<std::vector<Image>> tiles;
  for (const auto& row : contact_sheet_rows(counts, side * scale)) {
    tiles.emplace_back();
    for (const ImageId& id : row)
      tiles.back().push_back(picture_of(
          images, rows_of[static_cast<std::size_t>(id.label)][static_cast<std::size_t>(id.index)]));
  }
  return tiles.empty() ? std::string() : encode_png(contact_sheet(tiles, scale));
}

}  // namespace

std::string number_text(double value) {
  return std::isfinite(value) ? fmt::format("{:.4g}", value) : "–";
}

std::string value_text(const Measurement& one) {
  std::string text = number_text(one.value);
  if (std::isfinite(one.std)) text += fmt::format(" ± {:.2g}", one.std);
  return text;
}

EvaluationPictures evaluation_pictures(const ImageSets& sets, const Evaluation& evaluation,
                                       bool with_pairs) {
  EvaluationPictures pictures{sheet_of(sets.corpus.images), sheet_of(sets.reference.images), {}};
  if (!with_pairs || evaluation.status != ReferenceStatus::kPrivate) return pictures;
  for (const NearestPair& pair : evaluation.nearest)
    pictures.pairs.emplace_back(encode_png(picture_of(sets.corpus.images, pair.corpus_row)),
                                encode_png(picture_of(sets.reference.images, pair.reference_row)));
  return pictures;
}

std::string evaluation_html(const Evaluation& evaluation, const ReportedSet& corpus,
                            const ReportedSet& reference, const EvaluationPictures& pictures) {
  std::vector<std::string> notes(std::begin(kEvaluationNotes), std::end(kEvaluationNotes));
  return html_page(
      "Evaluation of " + corpus.name,
      kTableStyle + banners(evaluation, corpus) + list_section("Warnings", evaluation.warnings) +
          numbers_section(evaluation) + sheets_section(pictures, corpus, reference) +
          classes_section(evaluation) + pairs_section(evaluation, pictures) +
          list_section("Not measured", evaluation.left_out) +
          fmt::format(
              "<section>\n<h2>Sets</h2>\n<table><tbody>\n{}{}</tbody></table>\n</section>\n",
              set_row("corpus", corpus), set_row("reference", reference)) +
          list_section("How to read this", notes));
}

}  // namespace sfumato
