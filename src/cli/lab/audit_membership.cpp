#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cli/lab/audit_ranks.h"
#include "cli/lab/audit_subcommands.h"
#include "cli/subcommands.h"
#include "sfumato/audit/membership_report.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/core/sha256.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/corpus/sampling_model.h"
#include "sfumato/data/holdout.h"
#include "sfumato/data/record_store.h"
#include "sfumato/dist/join_ranks.h"
#include "sfumato/dist/together.h"
#include "sfumato/report/privacy_card.h"
#include "sfumato/report/progress.h"
#include "sfumato/report/report_folder.h"
#include "sfumato/train/shared_store.h"

namespace sfumato::cli {
namespace {

namespace fs = std::filesystem;

struct MembershipArguments {
  std::string model, members, non_members, out;
  int64_t count = 2000;
  int64_t batch = 64;
  std::vector<std::string> scores;
  MembershipOptions options;
  ConfigOptions config;
  bool json = false;
};

void check_store(const RecordStore& store, const SamplingModel& model, const char* option) {
  const ImageShape& shape = model.shape;
  if (store.height() != shape.height || store.width() != shape.width ||
      store.channels() != shape.channels)
    throw UsageError(fmt::format(
        "{}: the store holds {}x{} images of {} channels, the network makes {}x{} of {}; prepare "
        "the images as those that it was trained on",
        option, store.width(), store.height(), store.channels(), shape.width, shape.height,
        shape.channels));
  if (model.num_classes > 0 && store.num_classes() != model.num_classes)
    throw UsageError(
        fmt::format("{}: the store has {} classes, the network {}; prepare the images "
                    "with their labels, or set data.num_classes",
                    option, store.num_classes(), model.num_classes));
}

/// The non-members where nobody names others.
std::string held_out_of(const std::string& members) {
  if (const auto place = held_out_beside(members)) return place->string();
  throw UsageError(fmt::format(
      "audit membership needs images that the network has not seen: name their record store with "
      "--non-members, or prepare with data.holdout=0.1, which holds some out in '{}'",
      holdout_store(members).string()));
}

/// Scores of one store with a progress line.
ScoredRecords attack(const RecordStore& store, const MembershipArguments& arguments,
                     const MembershipScorer& scorer, bool with_labels, const char* purpose,
                     Communicator& ranks) {
  const auto records =
      choose_records(store.count(), arguments.count, arguments.options.seed, purpose);
  const auto total = std::ssize(records);
  Progress progress(std::cerr, isatty(STDERR_FILENO) != 0, 10);
  const auto start = std::chrono::steady_clock::now();
  const bool shown = !arguments.json && ranks.leads();
  const auto show = [&](int64_t done) {
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    ProgressState state;
    state.step = done;
    state.total = total;
    state.items_per_s = static_cast<double>(done) / elapsed.count();
    state.seconds_left = static_cast<double>(total - done) / state.items_per_s;
    if (shown) progress.update(state);
  };
  ScoredRecords scored =
      score_records(store, records, scorer, with_labels, arguments.batch, show, &ranks);
  if (shown) progress.finish();
  return scored;
}

/// What makes the comparison doubtful.
std::vector<std::string> doubts(const RecordStore& members, const RecordStore& others,
                                const SamplingModel& model, const MembershipAudit& audit) {
  std::vector<std::string> found;
  const auto hash = model.card.find("data_manifest_hash");
  if (hash != model.card.end() && hash->is_string() && *hash != members.manifest_hash())
    found.emplace_back(
        "the privacy card names another store than --members (the same images prepared again count "
        "as another); of records that were not trained on, the attacks find nothing");
  const auto both = records_in_both(members, others, audit.non_members.records);
  if (!both.empty())
    found.push_back(
        fmt::format("{} of the {} non-members have the pixels of a member, so they are "
                    "members too: the attacks look weaker than they are",
                    both.size(), audit.non_members.records.size()));
  return found;
}

void print_result(const MembershipArguments& arguments, const MembershipAudit& audit,
                  const ReportFolder& folder) {
  const fs::path page = folder.path() / "membership.html";
  nlohmann::ordered_json json = to_json(audit);
  json["report"] = page.string();
  json["scores"] = (folder.path() / "membership_scores.csv").string();
  folder.write("membership_scores.csv", membership_csv(audit));
  folder.write("membership.html", membership_html(audit));
  folder.write("membership.json", json.dump(2) + "\n");
  if (arguments.json) {
    std::cout << json.dump(2) << "\n";
  } else {
    for (const auto& warning : json["warnings"]) log_warning(warning.get<std::string>());
    fmt::print("{}report, for the data holder's eyes only: {}\n", membership_text(audit),
               page.string());
    std::fflush(stdout);
  }
}

std::string sha256_of(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.detach().cpu().contiguous();
  return sha256_hex({static_cast<const char*>(flat.const_data_ptr()), flat.nbytes()});
}

/// What is attacked, as every rank opens it for itself.
struct Attacked {
  Attacked(MembershipArguments& arguments, Communicator& ranks)
      : place(find_model(arguments.model)) {
    if (arguments.config.file.empty()) arguments.config.file = place.config_file.string();
    config = load(arguments.config);
    set_threads_of_rank(config->performance.threads(), ranks);
    model = open_sampling_model(place, *config);
    for (const std::string& name : arguments.scores)
      arguments.options.scores.push_back(parse_enum<MembershipScore>(name));
    if (!place.run.empty() && !model.generator->attack_obstacle().empty())
      whole = trained_generator(place.run, *config);
    scorer = membership_scorer(whole ? *whole : *model.generator, *config, arguments.options);
  }
  /// Of the network and of what decides the scores besides their columns.
  std::string description(const MembershipOptions& options) const {
    std::string text = fmt::format("{} {} {} {}", model.weights_sha256, model.config_sha256,
                                   options.draws, options.seed);
    if (!whole) return text;
    for (const auto& [group, tensors] : whole->state())
      for (const auto& [name, tensor] : tensors) text += sha256_of(tensor);
    return text;
  }

  ModelPlace place;
  std::unique_ptr<Config> config;
  SamplingModel model;
  std::unique_ptr<Generator> whole;  ///< where a release leaves out what the attack asks
  std::unique_ptr<MembershipScorer> scorer;
};

void audit_on(Communicator& ranks, MembershipArguments& arguments) {
  std::optional<Attacked> attacked;
  or_part(ranks, [&] { everywhere(ranks, [&] { attacked.emplace(arguments, ranks); }); });
  const SamplingModel& model = attacked->model;
  ranks.require_same("what is attacked", attacked->description(arguments.options),
                     "give all processes the same model and options");
  const RecordStore members = open_shared_store(arguments.members, ranks);
  const bool held_out = arguments.non_members.empty();
  or_part(ranks, [&] {
    everywhere(ranks, [&] {
      if (held_out) arguments.non_members = held_out_of(arguments.members);
    });
  });
  const RecordStore others = open_shared_store(arguments.non_members, ranks);
  if (held_out && ranks.leads())
    log_info(fmt::format("non-members: '{}', what prepare held out from training",
                         arguments.non_members));
  std::optional<ReportFolder> folder;
  or_part(ranks, [&] {
    on_leader(ranks, [&] {
      if (held_out) check_holdout_of(members, others);
      check_store(members, model, "--members");
      check_store(others, model, "--non-members");
      if (members.manifest_hash() == others.manifest_hash())
        throw UsageError("--members and --non-members are the same store");
      folder.emplace(arguments.out.empty()
                         ? ReportFolder::usual(attacked->place.run, arguments.members, "audit")
                         : fs::path(arguments.out));
    });
  });
  MembershipAudit audit;
  audit.model = model.origin.front().get<std::string>();
  audit.held_out = held_out;
  audit.columns = attacked->scorer->columns();
  audit.claim = ClaimedBound::from_card(model.card);
  if (!audit.claim) audit.no_claim = card_banner(model.card).headline;
  install_stop_signals();
  log_info(fmt::format("{} queries of the network for each image", attacked->scorer->queries()));
  const bool with_labels = model.num_classes > 0;
  audit.members = attack(members, arguments, *attacked->scorer, with_labels, "members", ranks);
  audit.non_members =
      attack(others, arguments, *attacked->scorer, with_labels, "non-members", ranks);
  or_part(ranks, [&] {
    on_leader(ranks, [&] {
      audit.results = evaluate_attacks(audit.columns, audit.members, audit.non_members);
      audit.warnings = doubts(members, others, model, audit);
      print_result(arguments, audit, *folder);
      if (verdict_of(audit) == Verdict::kContradicts)
        throw PrivacyError("the attack contradicts the claim on the privacy card; see " +
                           (folder->path() / "membership.html").string());
    });
  });
}

void run(MembershipArguments& arguments) {
  if (arguments.json) set_quiet(true);
  with_ranks([&](const std::shared_ptr<Communicator>& ranks) { audit_on(*ranks, arguments); });
}

}  // namespace

void add_audit_membership(CLI::App& audit) {
  CLI::App* sub = audit.add_subcommand(
      "membership", "membership attacks on a trained network, against what its card permits");
  auto arguments = std::make_shared<MembershipArguments>();
  sub->add_option("model", arguments->model, "run directory, or folder with a diffusers model")
      ->required()
      ->type_name("MODEL");
  sub->add_option("--members", arguments->members, "record store that it was trained on")
      ->required()
      ->type_name("STORE");
  sub->add_option(
         "--non-members", arguments->non_members,
         "record store of the same population that it has not seen (default: what prepare held "
         "out, MEMBERS-holdout)")
      ->type_name("STORE");
  sub->add_option("--count", arguments->count, "records of each store, at random; 0: all")
      ->capture_default_str()
      ->type_name("N");
  sub->add_option("--scores", arguments->scores,
                  "loss, sima, pia, secmi, discriminator (default: all of its family)")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name("a,b");
  sub->add_option("--timesteps", arguments->options.timesteps,
                  "candidates, of which one half of the records chooses (default: 7 of them)")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name("t,t");
  sub->add_option("--draws", arguments->options.draws, "noises of the loss at each timestep")
      ->capture_default_str()
      ->type_name("K");
  sub->add_option("--batch", arguments->batch, "images scored together; it does not change them")
      ->capture_default_str()
      ->type_name("N");
  sub->add_option("--seed", arguments->options.seed, "of the noises and of the choice of records")
      ->capture_default_str();
  sub->add_option("--out", arguments->out,
                  "folder for the report (default: RUN/private/audit, else STORE-audit)")
      ->type_name("FOLDER");
  sub->add_flag("--json", arguments->json, "print the result as JSON");
  add_config_options(*sub, arguments->config);
  sub->callback([arguments] { run(*arguments); });
}

}  // namespace sfumato::cli
