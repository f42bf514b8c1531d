#pragma once
#include <string>
#include <vector>

#include "sfumato/sweep/sweep_state.h"

namespace sfumato {

/// A point of a learning curve.
struct CurvePoint {
  double step = 0, loss = 0;
};

/// A run as reports show it.
struct ReportRow {
  const SweepRun* run;
  RunState state;
  std::vector<CurvePoint> curve;  ///< empty where it may not be seen
  std::string contact_sheet_png;
};

/// All that is shown.
struct SweepReport {
  const SweepPlan* plan;
  std::vector<std::string> keys;  ///< settings that differ between runs, in the order of the plan
  std::vector<ReportRow> rows;
  bool has_scores = false;

  /// Of a run; "" where it does not set the key.
  static std::string value(const ReportRow& row, const std::string& key);
};

SweepReport read_report(const SweepPlan& plan, std::chrono::seconds stale_after);

/// One line for each run, quoted as RFC 4180 says.
std::string report_csv(const SweepReport& report);
/// A page of its own.
std::string sweep_report_page(const SweepReport& report);

/// Lines of numbers as SVG: one polyline for each run, with the ends of each axis.
std::string parallel_coordinates_svg(const SweepReport& report);
std::string learning_curves_svg(const SweepReport& report);

}  // namespace sfumato
