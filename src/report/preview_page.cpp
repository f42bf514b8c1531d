#include "sfumato/report/preview_page.h"

#include <fmt/format.h>

#include "sfumato/core/text.h"

namespace sfumato {

std::string preview_page(const PreviewPage& page) {
  std::string body;
  for (const auto& [step, file] : page.pictures)
    body += fmt::format(
        "<figure><img src=\"{}\" alt=\"pictures after step {}\"><figcaption>after step {}"
        "</figcaption></figure>\n",
        html_escape(file), step, step);
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<meta http-equiv=\"refresh\" content=\"30\">\n<meta name=\"color-scheme\" content=\"light "
      "dark\">\n<title>step {0} of {1}</title>\n<style>\n"
      "body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 1rem auto; "
      "padding: 0 1rem; }}\nfigure {{ margin: 0 0 1.5rem; }}\n"
      "img {{ max-width: 100%; image-rendering: pixelated; }}\n</style>\n</head>\n<body>\n"
      "<h1>Previews: step {0} of {1}{2}</h1>\n"
      "<p>Drawn from the average that would be released at that step; the page reloads itself. "
      "Whoever chooses a checkpoint by these pictures claims the ε of the whole plan (sfumato "
      "release RUN --step N).</p>\n{3}</body>\n</html>\n",
      page.step, page.end,
      page.epsilon.empty() ? std::string() : fmt::format(", ε spent {}", html_escape(page.epsilon)),
      body);
}

}  // namespace sfumato
