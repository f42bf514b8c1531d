#include "corpus/corpus_documents.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstddef>
#include <numeric>

#include "corpus/class_folders.h"
#include "sfumato/core/file.h"
#include "sfumato/core/log.h"
#include "sfumato/core/place.h"
#include "sfumato/core/printable.h"
#include "sfumato/core/sha256.h"
#include "sfumato/core/text.h"
#include "sfumato/core/version.h"
#include "sfumato/corpus/contact_sheet.h"
#include "sfumato/io/json_file.h"
#include "sfumato/report/html_report.h"
#include "sfumato/report/privacy_card.h"
#include "sfumato/run/card_plots.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

int64_t total_of(const CorpusSpec& spec) {
  return std::accumulate(spec.images_per_class.begin(), spec.images_per_class.end(), int64_t{0});
}

bool is_untrained(const CorpusSpec& spec, std::size_t label) {
  return label < spec.may_be_untrained.size() && spec.may_be_untrained[label];
}

std::string title_of(const CorpusSpec& spec) {
  return printable(without_slash(fs::absolute(spec.folder)).filename().string());
}

/// Made from the written files: it shows what is there.
std::string contact_sheet_png(const CorpusSpec& spec, ImageSink& sink) {
  const int64_t side = std::max(spec.shape.height, spec.shape.width);
  const int64_t scale = contact_sheet_scale(side);
  const auto rows = contact_sheet_rows(spec.images_per_class, side * scale);
  std::vector<ImageId> all;
  for (const auto& row : rows) all.insert(all.end(), row.begin(), row.end());
  std::vector<Image> images = sink.read(all);
  std::vector<std::vector<Image>> tiles;
  auto image = images.begin();
  for (const auto& row : rows) {
    tiles.emplace_back(std::make_move_iterator(image),
                       std::make_move_iterator(image + std::ssize(row)));
    image += std::ssize(row);
  }
  return encode_png(contact_sheet(tiles, scale));
}

std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"") == std::string::npos) return text;
  std::string quoted;
  for (const char c : text) quoted += c == '"' ? "\"\"" : std::string(1, c);
  return '"' + quoted + '"';
}

std::string metadata_csv(const CorpusSpec& spec) {
  const bool named = !spec.class_names.empty();
  std::string csv = named ? "file_name,label,class_name\n" : "file_name,label\n";
  for (std::size_t label = 0; label < spec.images_per_class.size(); ++label)
    for (int64_t index = 0; index < spec.images_per_class[label]; ++index) {
      const ImageId image{static_cast<int64_t>(label), index};
      csv += fmt::format("{},{}", image_file_name(spec, image), label);
      csv += named ? "," + csv_field(spec.class_names[label]) + "\n" : "\n";
    }
  return csv;
}

/// The size class of the Hugging Face hub.
std::string size_category(int64_t images) {
  const std::vector<std::pair<int64_t, const char*>> steps = {
      {1'000, "n<1K"},          {10'000, "1K<n<10K"},     {100'000, "10K<n<100K"},
      {1'000'000, "100K<n<1M"}, {10'000'000, "1M<n<10M"}, {100'000'000, "10M<n<100M"}};
  for (const auto& [limit, name] : steps)
    if (images < limit) return name;
  return "100M<n<1B";
}

/// The YAML that the Hugging Face hub and `datasets` read. The files are named because the contact
/// sheet is no part of the data.
std::string hub_header(const CorpusSpec& spec, const Json& card) {
  std::string out = "---\n";
  out += fmt::format("pretty_name: {}\n", Json(title_of(spec)).dump());
  out += fmt::format("size_categories:\n- {}\n", size_category(total_of(spec)));
  out += "tags:\n- synthetic\n- image\n- sfumato\n";
  if (card_banner(card).banner == ReportBanner::kPrivate) out += "- differential-privacy\n";
  out += "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path:\n";
  out += spec.format == CorpusFormat::kFolder ? "    - images/**\n    - metadata.csv\n"
                                              : "    - shard-*.tar\n";
  return out + "---\n";
}

std::string how_to_load(const CorpusSpec& spec) {
  const std::string files = spec.format == CorpusFormat::kFolder
                                ? R"("imagefolder", data_files=["images/**", "metadata.csv"])"
                                : R"("webdataset", data_files="shard-*.tar")";
  return fmt::format(
      "## Loading\n\n```python\n# in this folder\nfrom datasets import load_dataset\n"
      "corpus = load_dataset({}, split=\"train\")\n```\n",
      files);
}

/// For a cell of a Markdown table.
std::string cell(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (std::string_view("|\\`*_[]<>&").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

/// Of classes in metadata.csv.
std::vector<std::string> misread_names(const CorpusSpec& spec) {
  if (spec.format != CorpusFormat::kFolder) return {};
  return names_misread_in_csv(spec.class_names);
}

/// Labels, names and folders; and what a reader would otherwise get wrong.
std::string class_table(const CorpusSpec& spec) {
  if (spec.class_names.empty()) return "";
  const bool folders = spec.format == CorpusFormat::kFolder;
  std::string text =
      fmt::format("## Classes\n\n| label | name | {} | images |\n|---|---|---|---|\n",
                  folders ? "folder" : "members");
  std::vector<std::string> untrained;
  for (std::size_t label = 0; label < spec.class_names.size(); ++label) {
    const int64_t images = spec.images_per_class[label];
    const std::string where =
        folders ? fmt::format("{}/{}", kImagesFolder, spec.class_folders[label])
                : padded_label(static_cast<int64_t>(label), std::ssize(spec.class_names)) + "-*";
    text += fmt::format("| {} | {} | {} | {} |\n", label, cell(spec.class_names[label]),
                        cell(where), images);
    if (images > 0 && is_untrained(spec, label)) untrained.push_back(cell(spec.class_names[label]));
  }
  if (!untrained.empty())
    text += fmt::format(
        "\n**Perhaps never trained:** {}. The network may have seen no image of these classes; "
        "their pictures were asked for and need not show anything of the kind.\n",
        fmt::join(untrained, ", "));
  std::vector<std::string> misread;
  for (const std::string& name : misread_names(spec)) misread.push_back(cell(name));
  if (!misread.empty())
    text += fmt::format(
        "\n**Names that readers of metadata.csv change:** {}. pandas, and `datasets` with it, "
        "takes "
        "them for missing values or numbers. `label` holds; "
        "`pandas.read_csv(\"metadata.csv\", keep_default_na=False, dtype={{\"class_name\": str}})` "
        "reads them as they are.\n",
        fmt::join(misread, ", "));
  if (folders && std::ranges::count(spec.images_per_class, 0) > 0)
    text +=
        "\nClasses without images have an empty folder, so that the folders still count as the "
        "labels do (torchvision: `ImageFolder(..., allow_empty=True)`); `label` in metadata.csv "
        "holds without them.\n";
  return text + "\n";
}

std::string readme(const CorpusSpec& spec, const Json& card) {
  const auto classes =
      std::ranges::count_if(spec.images_per_class, [](int64_t n) { return n > 0; });
  const std::string made = fmt::format(
      "{} synthetic images of {}×{} pixels, {}{}, drawn from a generative model by sfumato {}.",
      total_of(spec), spec.shape.height, spec.shape.width,
      spec.shape.channels == 1 ? "grey" : "RGB",
      classes > 1 ? fmt::format(", {} classes", classes) : "", version());
  std::string counts =
      spec.noisy_proportions
          ? " The classes are in the proportions of a noisy count of the private images, which is "
            "part of the privacy statement below."
          : "";
  if (spec.candidates > 1)
    counts += fmt::format(
        " Of {} images that were drawn for each, those were kept that are like their class by what "
        "was released with noise of the private images' features, which is part of the privacy "
        "statement below.",
        spec.candidates);
  return fmt::format(
      "{}\n# {}\n\n{}{}\n\n![Contact sheet]({})\n\n{}\n{}\n{}"
      "## Settings\n\n```json\n{}\n```\n",
      hub_header(spec, card), title_of(spec), made, counts, kContactSheet, card_markdown(card),
      how_to_load(spec), class_table(spec), spec.settings.dump(2));
}

std::string report(const CorpusSpec& spec, const Json& card, const std::string& sheet_png) {
  const CardBanner banner = card_banner(card);
  HtmlReport page;
  page.title = title_of(spec);
  page.banner = banner.banner;
  page.headline = banner.headline;
  const auto bytes = std::as_bytes(std::span(sheet_png));
  page.contact_sheet_png.assign(bytes.begin(), bytes.end());
  page.contact_sheet_alt = fmt::format("Some of the {} synthetic images", total_of(spec));
  page.card = card_rows(card);
  page.plots = card_plots(card);
  page.settings_yaml = spec.settings.dump(2);  // JSON is YAML
  page.notes = card_notes(card);
  return html_report(page);
}

/// By which `prepare` recognises the corpus and gives its images their labels again.
Json classes_json(const CorpusSpec& spec) {
  Json classes = Json::array();
  for (std::size_t label = 0; label < spec.class_names.size(); ++label) {
    Json entry = {{"label", label}, {"name", spec.class_names[label]}};
    if (spec.format == CorpusFormat::kFolder)
      entry["folder"] = fmt::format("{}/{}", kImagesFolder, spec.class_folders[label]);
    entry["images"] = spec.images_per_class[label];
    if (is_untrained(spec, label)) entry["may_be_untrained"] = true;
    classes.push_back(entry);
  }
  return classes;
}

Json lineage(const CorpusSpec& spec, const std::string& card_text, const Json& origin) {
  return {{"schema_version", 2},
          {"made_by", {{"name", "sfumato"}, {"version", version()}, {"commit", git_commit()}}},
          {"finished_at", utc_now()},
          {"origin", origin},
          {"settings", spec.settings},
          {"images_per_class", spec.images_per_class},
          {"classes", classes_json(spec)},
          {"privacy_card_sha256", sha256_hex(card_text)}};
}

}  // namespace

void write_corpus_documents(const CorpusSpec& spec, ImageSink& sink, const Json& card,
                            const Json& origin) {
  const fs::path& folder = spec.folder;
  const std::string sheet = contact_sheet_png(spec, sink);
  make_folder((folder / kContactSheet).parent_path());
  write_file_atomic(folder / kContactSheet, sheet);
  if (spec.format == CorpusFormat::kFolder)
    write_file_atomic(folder / "metadata.csv", metadata_csv(spec));
  if (const std::vector<std::string> misread = misread_names(spec); !misread.empty())
    log_warning(fmt::format(
        "pandas and `datasets` take the class name{} '{}' in metadata.csv for missing values or "
        "numbers; the column label holds, and README.md says how to read the names",
        misread.size() == 1 ? "" : "s", printable(fmt::format("{}", fmt::join(misread, "', '")))));
  write_json_atomic(folder / "privacy_card.json", card);
  write_file_atomic(folder / "README.md", readme(spec, card));
  write_file_atomic(folder / "report.html", report(spec, card, sheet));
  write_json_atomic(folder / "lineage.json",
                    lineage(spec, read_file(folder / "privacy_card.json"), origin));
}

}  // namespace sfumato
