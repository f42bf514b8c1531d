#include "sfumato/report/preview_page.h"

#include <fmt/format.h>

#include <algorithm>

#include "sfumato/core/text.h"

namespace sfumato {
namespace {

constexpr std::size_t kMostInStrip = 12;

/// The same corner of pictures from first to last, evenly chosen, each a link to its whole sheet.
std::string strip_of(const PreviewPage& page) {
  const std::size_t count = page.pictures.size(), shown = std::min(count, kMostInStrip);
  if (shown < 2) return {};
  std::string items;
  for (std::size_t i = 0; i < shown; ++i) {
    // Of newest first, from the last.
    const auto& [step, file] = page.pictures[(shown - 1 - i) * (count - 1) / (shown - 1)];
    items += fmt::format(
        "<li><a href=\"#step-{0}\"><img src=\"{1}\" alt=\"corner of the pictures after step {0}\">"
        "step {0}</a></li>\n",
        step, html_escape(file));
  }
  return fmt::format("<ol class=\"strip\" aria-label=\"Along training\">\n{}</ol>\n", items);
}

}  // namespace

std::string preview_page(const PreviewPage& page) {
  std::string body = strip_of(page);
  for (const auto& [step, file] : page.pictures)
    body += fmt::format(
        "<figure id=\"step-{1}\"><img src=\"{0}\" alt=\"pictures after step "
        "{1}\"><figcaption>after "
        "step {1}</figcaption></figure>\n",
        html_escape(file), step);
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<meta http-equiv=\"refresh\" content=\"30\">\n<meta name=\"color-scheme\" content=\"light "
      "dark\">\n<title>step {0} of {1}</title>\n<style>\n"
      "body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 1rem auto; "
      "padding: 0 1rem; }}\nfigure {{ margin: 0 0 1.5rem; }}\n"
      "img {{ max-width: 100%; image-rendering: pixelated; }}\n"
      ".strip {{ display: flex; gap: .75rem; overflow-x: auto; list-style: none; padding: 0; "
      "margin: 0 0 1.5rem; font-size: .85rem; }}\n"
      ".strip img {{ display: block; width: 7rem; height: 7rem; max-width: none; object-fit: "
      "cover; "
      "object-position: 0 0; }}\n</style>\n</head>\n<body>\n"
      "<h1>Previews: step {0} of {1}{2}</h1>\n"
      "<p>Drawn from the average that would be released at that step; the page reloads itself. "
      "Whoever chooses a checkpoint by these pictures claims the ε of the whole plan (sfumato "
      "release RUN --step N).</p>\n{3}</body>\n</html>\n",
      page.step, page.end,
      page.epsilon.empty() ? std::string() : fmt::format(", ε spent {}", html_escape(page.epsilon)),
      body);
}

}  // namespace sfumato
