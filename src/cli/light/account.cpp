#include <fmt/format.h>

#include <cmath>
#include <memory>
#include <optional>

#include "cli/light/account_card.h"
#include "cli/light/accounting_options.h"
#include "cli/light/privacy_text.h"
#include "cli/light/program.h"
#include "cli/subcommands.h"
#include "sfumato/core/error.h"

namespace sfumato::cli {
namespace {

struct AccountOptions : AccountingOptions {
  std::vector<std::string> phases;
  std::string card;
  std::optional<double> delta, epsilon;
};

std::string sentence(const PrivacyStatement& statement, const AccountOptions& options) {
  const std::string unit =
      options.records_per_unit == 1
          ? "one record"
          : fmt::format("one user with at most {} records", options.records_per_unit);
  if (!std::isfinite(statement.epsilon))
    return fmt::format(
        "No finite epsilon at delta {}: {} is not protected (no noise, or a "
        "mechanism that fails with as much probability).\n",
        statement.delta, unit);
  const std::string verb =
      statement.adjacency == Adjacency::kReplaceOne ? "Replacing" : "Adding or removing";
  return fmt::format("{} {} changes the distribution of the outputs by at most {}.\n",
                     statement.adjacency == Adjacency::kZeroOut ? "Zeroing out" : verb, unit,
                     to_text(statement));
}

void run_account(const AccountOptions& options) {
  if (!options.card.empty()) return account_card(options.card, options.json);
  if (options.phases.empty())
    throw UsageError("account: give --phase, once or more, or --card with a privacy_card.json");
  if (options.delta.has_value() == options.epsilon.has_value())
    throw UsageError("account: give either --delta (to get epsilon) or --epsilon (to get delta)");
  const Accountant accountant = parse_enum<Accountant>(options.accountant);
  const Adjacency adjacency = parse_enum<Adjacency>(options.adjacency);
  const std::optional<Selection> selection = selection_of(options);
  const std::vector<PrivacyEvent> events =
      parse_events("--phase", options.phases, adjacency, options.records_per_unit);
  const PrivacyStatement statement =
      options.delta ? account_epsilon(accountant, events, *options.delta, adjacency, selection)
                    : account_delta(accountant, events, *options.epsilon, adjacency, selection);
  if (options.json) {
    nlohmann::ordered_json json = to_json(statement);
    if (selection) json["selection"] = selection_json(*selection);
    fmt::print("{}\n", json.dump());
  } else {
    fmt::print("{}{}{}", sentence(statement, options), selection ? selection_text(*selection) : "",
               event_table(events, statement, selection.has_value()));
  }
}

}  // namespace

void add_account(CLI::App& app) {
  auto options = std::make_shared<AccountOptions>();
  CLI::App* sub = add_subcommand(app, "account");
  sub->add_option(
      "--phase", options->phases,
      "sample_rate:noise_multiplier:steps[:records:max_batch] of the Poisson-subsampled Gaussian "
      "(the last two: truncated Poisson batches), gaussian:sensitivity:stddev[:count] or "
      "approximate:epsilon:delta[:count]; repeatable. Noise of the first is in clip norms, and "
      "what "
      "the adjacency makes of one is added here: 1:1:1 costs more under replace_one. The "
      "sensitivity "
      "of gaussian:1:1 is that under the adjacency already, and its cost the same under each");
  sub->add_option("--card", options->card,
                  "privacy_card.json, or a release, run or corpus that holds one, whose epsilon is "
                  "recomputed from its stages; exit code 4 if it "
                  "claims less than they cost");
  sub->add_option("--delta", options->delta, "gives the epsilon that holds with this delta");
  sub->add_option("--epsilon", options->epsilon, "gives the delta that holds with this epsilon");
  add_accounting_options(*sub, *options);
  sub->callback([options] { run_account(*options); });
}

}  // namespace sfumato::cli
