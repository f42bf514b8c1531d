#include "sfumato/report/html_report.h"

#include <fmt/format.h>

#include <cstring>

#include "sfumato/core/sha256.h"
#include "sfumato/core/text.h"
#include "sfumato/core/version.h"
#include "sfumato/report/base64.h"

namespace sfumato {
namespace {

// The policy makes a browser refuse what this page never needs, were a field ever left unescaped.
constexpr std::string_view kHead = R"(<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
)";

/// The one script's hash, as the policy names it.
std::string script_source(std::string_view script) {
  if (script.empty()) return {};
  Sha256 hash;
  hash.update(script);
  const auto digest = hash.finish();
  std::vector<std::byte> bytes(digest.size());
  std::memcpy(bytes.data(), digest.data(), digest.size());
  return fmt::format("; script-src 'sha256-{}'", base64(bytes));
}

// Part of every page that was ever released: `ledger verify` compares those byte for byte with what
// is written here. What another page needs goes into its own body.
constexpr std::string_view kStyle = R"(<style>
:root { --ink: #1d2327; --soft: #5b666e; --paper: #fbfaf8; --card: #ffffff; --line: #dcd8d2;
        --claim: #20603d; --claim-paper: #e9f4ec; --alarm: #a3121d; --alarm-ink: #ffffff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e3de; --soft: #a39d94; --paper: #16181a; --card: #1f2225; --line: #383d41;
          --claim: #9fd8b4; --claim-paper: #1d3327; --alarm: #b3202b; --alarm-ink: #ffffff; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
       font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 56rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .75rem; }
.banner { padding: 1rem 1.25rem; border-radius: .5rem; overflow-wrap: anywhere; }
.banner p { margin: 0; font-size: 1.1rem; }
.banner strong { display: block; font-size: 1.5rem; letter-spacing: .06em; }
.private { background: var(--claim-paper); border-left: .35rem solid var(--claim); }
.alarm { background: var(--alarm); color: var(--alarm-ink); }
figure { margin: 0; padding: .75rem; background: var(--card); border: 1px solid var(--line);
         border-radius: .5rem; }
figure img { display: block; width: 100%; height: auto; image-rendering: pixelated; }
figcaption { color: var(--soft); font-size: .9rem; margin-top: .5rem; }
table { width: 100%; border-collapse: collapse; background: var(--card);
        border: 1px solid var(--line); }
th, td { text-align: left; vertical-align: top; padding: .5rem .75rem;
         border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
th { width: 34%; font-weight: 600; color: var(--soft); }
pre { margin: 0; padding: .75rem 1rem; overflow-x: auto; background: var(--card);
      border: 1px solid var(--line); border-radius: .5rem;
      font: .85rem/1.5 ui-monospace, Menlo, Consolas, monospace; }
li { margin-bottom: .4rem; }
footer { margin-top: 2.5rem; color: var(--soft); font-size: .85rem; }
@media print {
  :root { --ink: #000; --soft: #444; --paper: #fff; --card: #fff; --line: #bbb;
          --claim: #20603d; --claim-paper: #fff; }
  main { max-width: none; padding: 0; }
  .banner { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .alarm { border: .2rem solid var(--alarm); }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  figure, tr { break-inside: avoid; }
}
</style>
)";

std::string banner_of(const HtmlReport& report) {
  const std::string headline = html_escape(report.headline);
  if (report.banner == ReportBanner::kPrivate)
    return fmt::format("<div class=\"banner private\"><p>{}</p></div>\n", headline);
  if (report.banner == ReportBanner::kNoClaim)
    return fmt::format("<div class=\"banner\"><strong>NO CLAIM</strong><p>{}</p></div>\n",
                       headline);
  const char* word = report.banner == ReportBanner::kNotPrivate ? "NOT PRIVATE" : "VOID";
  return fmt::format(
      "<div class=\"banner alarm\" role=\"alert\"><strong>{}</strong><p>{}</p></div>\n", word,
      headline);
}

std::string contact_sheet_of(const HtmlReport& report) {
  if (report.contact_sheet_png.empty()) return "";
  const std::string alt = html_escape(report.contact_sheet_alt);
  return fmt::format(
      "<section>\n<h2>Contact sheet</h2>\n<figure>\n<img alt=\"{}\" "
      "src=\"data:image/png;base64,{}\">\n<figcaption>{}</figcaption>\n</figure>\n</section>\n",
      alt, base64(report.contact_sheet_png), alt);
}

std::string card_of(const HtmlReport& report) {
  if (report.card.empty()) return "";
  std::string rows;
  for (const auto& [key, value] : report.card)
    rows += fmt::format("<tr><th scope=\"row\">{}</th><td>{}</td></tr>\n", html_escape(key),
                        html_escape(value));
  return fmt::format(
      "<section>\n<h2>Privacy card</h2>\n<table>\n<tbody>\n{}</tbody>\n</table>\n</section>\n",
      rows);
}

std::string notes_of(const HtmlReport& report) {
  if (report.notes.empty()) return "";
  std::string items;
  for (const std::string& note : report.notes)
    items += fmt::format("<li>{}</li>\n", html_escape(note));
  return fmt::format("<section>\n<h2>What is and is not promised</h2>\n<ul>\n{}</ul>\n</section>\n",
                     items);
}

std::string settings_of(const HtmlReport& report) {
  if (report.settings_yaml.empty()) return "";
  return fmt::format("<section>\n<h2>Settings</h2>\n<pre>{}</pre>\n</section>\n",
                     html_escape(report.settings_yaml));
}

}  // namespace

std::string html_page(std::string_view title, std::string_view body, std::string_view script) {
  const std::string escaped = html_escape(title);
  std::string page;
  page += kHead;
  page += fmt::format(
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; "
      "style-src 'unsafe-inline'{}\">\n",
      script_source(script));
  page += fmt::format("<title>{}</title>\n", escaped);
  page += kStyle;
  page += fmt::format("</head>\n<body>\n<main>\n<h1>{}</h1>\n", escaped);
  page += body;
  if (!script.empty()) page += fmt::format("<script>{}</script>\n", script);
  page += fmt::format("<footer>Written by sfumato {} ({}).</footer>\n</main>\n</body>\n</html>\n",
                      html_escape(version()), html_escape(git_commit()));
  return page;
}

std::string html_report(const HtmlReport& report) {
  return html_page(report.title, banner_of(report) + contact_sheet_of(report) + card_of(report) +
                                     report.plots + notes_of(report) + settings_of(report));
}

}  // namespace sfumato
