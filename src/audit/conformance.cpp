#include "sfumato/audit/conformance.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>

#include "sfumato/config/config.h"
#include "sfumato/core/error.h"
#include "sfumato/mechanism/plan.h"

namespace sfumato {
namespace {

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

void check_all(ConformanceAudit& audit, MechanismUnderTest& mechanism, ProbeNetwork& network,
               const std::string& subject) {
  audit.check_gradients(mechanism, network, subject);
  audit.check_release(mechanism, network, subject);
  audit.check_ranks(mechanism, network, subject);
}

std::string number(double value) {
  return std::isfinite(value) ? fmt::format("{:.6g}", value) : fmt::format("{}", value);
}

}  // namespace

ConformanceAudit::ConformanceAudit(const MechanismPlan& plan, const ConformanceOptions& options)
    : plan_(plan), options_(options) {
  if (!plan.is_private)
    throw UsageError("conformance: the plan is not private; there is no mechanism to audit");
}

ConformanceReport ConformanceAudit::report() const {
  ConformanceReport report;
  report.plan = plan_;
  report.checks = checks_;
  report.ranks = ranks_;
  const auto statistical = std::count_if(
      checks_.begin(), checks_.end(), [](const auto& check) { return check.p_value.has_value(); });
  report.level = kFalseAlarm / static_cast<double>(std::max<int64_t>(statistical, 1));
  for (ConformanceCheck& check : report.checks)
    if (check.p_value) check.passed = *check.p_value >= report.level;
  return report;
}

bool ConformanceReport::conforms() const {
  return std::all_of(checks.begin(), checks.end(), [](const auto& check) { return check.passed; });
}

std::vector<std::string> ConformanceReport::failures() const {
  std::vector<std::string> failures;
  for (const ConformanceCheck& check : checks)
    if (!check.passed)
      failures.push_back(fmt::format("{}: {} ({})", check.group, check.name, check.subject));
  return failures;
}

MechanismPlan default_audit_plan() {
  MechanismPlan plan;
  plan.sample_rate = 0.05;
  plan.noise_multiplier = 1;
  plan.steps = 400;
  plan.clip_norm_l2 = 1;
  plan.expected_batch_size = 20;
  plan.delta = 1e-5;
  return plan;
}

ConformanceReport audit_conformance(MechanismUnderTest& mechanism, ProbeNetwork& network,
                                    const MechanismPlan& plan, const ConformanceOptions& options) {
  const Stopwatch watch;
  ConformanceAudit audit(plan, options);
  audit.check_sampling(mechanism);
  check_all(audit, mechanism, network, "layers");
  ConformanceReport report = audit.report();
  report.seconds = watch.seconds();
  return report;
}

ConformanceReport audit_conformance(const MechanismPlan& plan, std::optional<uint64_t> test_seed,
                                    const std::shared_ptr<Communicator>& ranks) {
  LayerProbe network(clip_options(plan), ranks);
  ProductionMechanism mechanism(plan, network.source(), test_seed);
  return audit_conformance(mechanism, network, plan);
}

ConformanceReport audit_conformance(const Config& config,
                                    const std::shared_ptr<Communicator>& ranks) {
  const Stopwatch watch;
  const MechanismPlan plan = make_plan(config);
  ConformanceAudit audit(plan);
  LayerProbe layers(clip_options(plan), ranks);
  ProductionMechanism on_layers(plan, layers.source());
  audit.check_sampling(on_layers);
  check_all(audit, on_layers, layers, "layers");
  ConfiguredProbe configured(config, plan, ranks);
  ProductionMechanism on_network(plan, configured.source());
  check_all(audit, on_network, configured, "network");
  ConformanceReport report = audit.report();
  report.seconds = watch.seconds();
  return report;
}

std::string to_text(const ConformanceReport& report) {
  const MechanismPlan& plan = report.plan;
  std::string text = fmt::format(
      "Mechanism: sample rate {}, noise multiplier {}, clip norm {} ({}), expected batch {}{}\n\n"
      "  {:<8} {:<10} {:<62} {:>12} {:>12}  verdict\n",
      plan.sample_rate, plan.noise_multiplier, plan.clip_norm_l2, to_string(plan.clipping),
      plan.expected_batch_size,
      report.ranks > 1 ? fmt::format(", by {} processes", report.ranks) : "", "subject", "group",
      "check", "statistic", "bound or p");
  for (const ConformanceCheck& check : report.checks)
    text += fmt::format("  {:<8} {:<10} {:<62} {:>12} {:>12}  {}\n", check.subject, check.group,
                        check.name, number(check.statistic),
                        check.bound ? fmt::format("<= {}", number(*check.bound))
                                    : fmt::format("p {:.1e}", *check.p_value),
                        check.passed ? "ok" : "CONTRADICTS");
  text += fmt::format(
      "\n{} of {} checks passed in {:.1f} s. A correct mechanism fails any of them with "
      "probability "
      "below {:g}\n(each statistical one below {:.1e}).\n",
      std::count_if(report.checks.begin(), report.checks.end(),
                    [](const auto& check) { return check.passed; }),
      report.checks.size(), report.seconds, kFalseAlarm, report.level);
  text += report.conforms() ? "Verdict: consistent with the claimed mechanism.\n"
                            : "Verdict: CONTRADICTS the claimed mechanism.\n";
  return text;
}

nlohmann::ordered_json to_json(const ConformanceReport& report) {
  using json = nlohmann::ordered_json;
  const auto finite = [](double value) {
    return std::isfinite(value) ? json(value) : json(fmt::format("{}", value));
  };
  json checks = json::array();
  for (const ConformanceCheck& check : report.checks)
    checks.push_back({{"subject", check.subject},
                      {"group", check.group},
                      {"name", check.name},
                      {"statistic", finite(check.statistic)},
                      {"bound", check.bound ? finite(*check.bound) : json()},
                      {"p_value", check.p_value ? finite(*check.p_value) : json()},
                      {"passed", check.passed}});
  return {{"audit", "conformance"},
          {"verdict", report.conforms() ? "consistent" : "contradicts the claim"},
          {"sample_rate", report.plan.sample_rate},
          {"noise_multiplier", report.plan.noise_multiplier},
          {"clip_norm_l2", report.plan.clip_norm_l2},
          {"clipping", to_string(report.plan.clipping)},
          {"expected_batch_size", report.plan.expected_batch_size},
          {"false_alarm", kFalseAlarm},
          {"level", report.level},
          {"ranks", report.ranks},
          {"seconds", report.seconds},
          {"checks", checks}};
}

}  // namespace sfumato
