#include "sfumato/report/html_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "sfumato/core/sha256.h"
#include "sfumato/report/base64.h"

namespace sfumato {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::vector<std::byte> bytes(std::string_view text) {
  std::vector<std::byte> out;
  for (const char c : text) out.push_back(static_cast<std::byte>(c));
  return out;
}

TEST(Base64, Rfc4648Vectors) {
  EXPECT_EQ(base64(bytes("")), "");
  EXPECT_EQ(base64(bytes("f")), "Zg==");
  EXPECT_EQ(base64(bytes("fo")), "Zm8=");
  EXPECT_EQ(base64(bytes("foo")), "Zm9v");
  EXPECT_EQ(base64(bytes("foob")), "Zm9vYg==");
  EXPECT_EQ(base64(bytes("fooba")), "Zm9vYmE=");
  EXPECT_EQ(base64(bytes("foobar")), "Zm9vYmFy");
  EXPECT_EQ(base64(bytes("\xff\xef\xbe\xfb")), "/++++w==");
}

HtmlReport full() {
  HtmlReport report;
  report.title = "Fashion & friends";
  report.banner = ReportBanner::kPrivate;
  report.headline = "ε = 9.97 at δ = 1e-5 per image, adjacency add/remove";
  report.contact_sheet_png = bytes("\x89PNG\r\n");
  report.contact_sheet_alt = "640 synthetic images";
  report.card = {{"unit", "one image"}, {"accountant", "RDP"}};
  report.settings_yaml = "train:\n  steps: 10\n";
  report.notes = {"Promised: DP.", "Not promised: beauty."};
  return report;
}

/// Every field filled with text that would break an unescaped page.
HtmlReport hostile() {
  const std::string evil = "</pre></table><script>alert(\"1\")</script><img src='x' onerror=y>&";
  HtmlReport report = full();
  report.title = report.headline = report.contact_sheet_alt = report.settings_yaml = evil;
  report.card = {{evil, evil}};
  report.notes = {evil};
  return report;
}

/// Tag names and attributes of a page; fails where tags do not nest.
std::vector<std::string> tags(const std::string& page) {
  const std::set<std::string> empty = {"meta", "img", "!DOCTYPE"};
  std::vector<std::string> all;
  std::vector<std::string> open;
  std::size_t at = 0;
  while ((at = page.find('<', at)) != std::string::npos) {
    const std::size_t end = page.find('>', at);
    if (end == std::string::npos) {
      ADD_FAILURE() << "'<' without '>'";
      break;
    }
    const std::string tag = page.substr(at + 1, end - at - 1);
    at = end + 1;
    all.push_back(tag);
    const std::string name = tag.substr(0, tag.find(' '));
    if (name.starts_with('/')) {
      if (open.empty() || open.back() != name.substr(1)) {
        ADD_FAILURE() << "</" << name.substr(1) << "> closes nothing";
        break;
      }
      open.pop_back();
    } else if (!empty.contains(name)) {
      open.push_back(name);
    }
  }
  EXPECT_TRUE(open.empty()) << open.back() << " stays open";
  return all;
}

TEST(HtmlReport, HoldsWhatItWasGiven) {
  const std::string page = html_report(full());
  EXPECT_THAT(page, HasSubstr("<title>Fashion &amp; friends</title>"));
  EXPECT_THAT(page, HasSubstr("<p>ε = 9.97 at δ = 1e-5 per image, adjacency add/remove</p>"));
  EXPECT_THAT(page,
              HasSubstr("alt=\"640 synthetic images\" src=\"data:image/png;base64,iVBORw0K\""));
  EXPECT_THAT(page, HasSubstr("<th scope=\"row\">unit</th><td>one image</td>"));
  EXPECT_THAT(page, HasSubstr("<pre>train:\n  steps: 10\n</pre>"));
  EXPECT_THAT(page, HasSubstr("<li>Not promised: beauty.</li>"));
  EXPECT_THAT(page, Not(HasSubstr("NOT PRIVATE")));
  EXPECT_THAT(page, Not(HasSubstr("VOID")));
  tags(page);
}

// Pages of releases are compared byte for byte with what is rendered now (`ledger verify`): with
// any other style the pages of all runs before would be refused. It may not change.
TEST(HtmlReport, TheStyleOfReleasedPagesStaysAsItIs) {
  const std::string page = html_report(full()), end = "</style>\n";
  const std::size_t from = page.find("<style>"), to = page.find(end);
  ASSERT_NE(from, std::string::npos);
  ASSERT_NE(to, std::string::npos);
  EXPECT_EQ(sha256_hex(page.substr(from, to + end.size() - from)),
            "4d28f047fde4866a208d76f3c7061dbdc67e519261559fa6bcdb557fa450934a");
  EXPECT_EQ(page.find("<style>", to), std::string::npos) << "nor is there another";
}

TEST(HtmlReport, SaysWhenThereIsNoClaim) {
  HtmlReport report = full();
  report.banner = ReportBanner::kNotPrivate;
  EXPECT_THAT(html_report(report), HasSubstr("class=\"banner alarm\" role=\"alert\"><strong>NOT "
                                             "PRIVATE</strong>"));
  report.banner = ReportBanner::kNoClaim;
  EXPECT_THAT(html_report(report), HasSubstr("<strong>NO CLAIM</strong>"));
  report.banner = ReportBanner::kVoid;
  EXPECT_THAT(html_report(report), HasSubstr("<strong>VOID</strong>"));
  EXPECT_THAT(html_report(HtmlReport{}), HasSubstr("<strong>VOID</strong>"));
}

TEST(HtmlReport, EscapesEveryField) {
  const std::string page = html_report(hostile());
  EXPECT_THAT(page, Not(HasSubstr("<script")));
  EXPECT_THAT(page, Not(HasSubstr("onerror=y>")));
  // The same elements as a page of harmless text: nothing was smuggled in.
  HtmlReport plain = hostile();
  plain.title = plain.headline = plain.contact_sheet_alt = plain.settings_yaml = "x";
  plain.card = {{"x", "x"}};
  plain.notes = {"x"};
  const auto names = [](const std::string& text) {
    std::vector<std::string> out;
    for (const std::string& tag : tags(text)) out.push_back(tag.substr(0, tag.find(' ')));
    return out;
  };
  EXPECT_EQ(names(page), names(html_report(plain)));
  std::size_t escaped = 0;
  for (std::size_t at = 0; (at = page.find("&lt;script&gt;", at)) != std::string::npos; ++at)
    ++escaped;
  EXPECT_EQ(escaped, 9u);  // title and alt twice each, headline, settings, card twice, note
}

TEST(HtmlReport, RefersToNothingOutside) {
  const std::string page = html_report(full());
  EXPECT_THAT(page, Not(HasSubstr("http://")));
  EXPECT_THAT(page, Not(HasSubstr("https://")));
  EXPECT_THAT(page, Not(HasSubstr("href")));
  EXPECT_THAT(page, Not(HasSubstr("url(")));
  EXPECT_THAT(page, Not(HasSubstr("@import")));
  EXPECT_THAT(page, Not(HasSubstr("<script")));
  int sources = 0;
  for (std::size_t at = 0; (at = page.find("src=", at)) != std::string::npos; ++at, ++sources)
    EXPECT_EQ(page.substr(at, 10), "src=\"data:");
  EXPECT_EQ(sources, 1);
}

TEST(HtmlReport, LeavesOutEmptySections) {
  HtmlReport report;
  report.title = "t";
  const std::string page = html_report(report);
  EXPECT_THAT(page, Not(HasSubstr("<h2>")));
  EXPECT_THAT(page, Not(HasSubstr("<img")));
  tags(page);
}

}  // namespace
}  // namespace sfumato
