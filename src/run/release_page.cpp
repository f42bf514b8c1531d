#include "run/release_page.h"

#include <nlohmann/json.hpp>

#include "sfumato/report/html_report.h"
#include "sfumato/report/privacy_card.h"
#include "sfumato/run/card_plots.h"

namespace sfumato {

std::string release_page(const nlohmann::ordered_json& card, const std::string& settings_yaml,
                         const std::string& plots) {
  const CardBanner banner = card_banner(card);
  HtmlReport report;
  report.title = "sfumato: trained generator";
  report.banner = banner.banner;
  report.headline = banner.headline;
  report.card = card_rows(card);
  report.plots = plots;
  report.settings_yaml = settings_yaml;
  report.notes = card_notes(card);
  return html_report(report);
}

std::string release_page(const nlohmann::ordered_json& card, const std::string& settings_yaml) {
  return release_page(card, settings_yaml, card_plots(card));
}

}  // namespace sfumato
