#pragma once
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sfumato {

/// What the page says first about privacy.
enum class ReportBanner {
  kPrivate,     ///< the headline stands
  kNotPrivate,  ///< red "NOT PRIVATE": trained without noise
  kNoClaim,     ///< plain "NO CLAIM": nothing was claimed of the weights, as of public ones
  kVoid,        ///< red "VOID": a condition of the claim was waived
};

/// Contents of a report page. Plain text in UTF-8 but for the plots; html_report
/// escapes it. Nothing that
/// comes from private data without noise belongs in here.
struct HtmlReport {
  std::string title;
  ReportBanner banner = ReportBanner::kVoid;
  std::string headline;  ///< a sentence: ε, δ, unit, adjacency; or why there is no claim
  std::vector<std::byte> contact_sheet_png;               ///< empty: no such section
  std::string contact_sheet_alt;                          ///< says what the picture shows
  std::vector<std::pair<std::string, std::string>> card;  ///< privacy card, one row each
  std::string plots;  ///< sections of HTML, which stand as they are: their maker escapes them
  std::string settings_yaml;
  std::vector<std::string> notes;  ///< what is and what is not promised
};

/// One self-contained HTML page: style and picture inside, no scripts, no reference to anything
/// outside. Readable on a phone, in print and with a dark colour scheme.
std::string html_report(const HtmlReport& report);

/// The same page around any other content. `body` is HTML: whoever makes it escapes what it holds.
/// `script`: one that the page runs, and the only one that a browser will, by its hash.
std::string html_page(std::string_view title, std::string_view body, std::string_view script = "");

}  // namespace sfumato
