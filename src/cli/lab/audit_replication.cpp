#include <fmt/format.h>

#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cli/lab/audit_ranks.h"
#include "cli/lab/audit_subcommands.h"
#include "sfumato/audit/replication_report.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/data/holdout.h"
#include "sfumato/data/record_store.h"
#include "sfumato/dist/together.h"
#include "sfumato/features/corpus_images.h"
#include "sfumato/report/report_folder.h"
#include "sfumato/train/shared_store.h"

namespace sfumato::cli {
namespace {

namespace fs = std::filesystem;

constexpr const char* kNoHoldout = "none";

struct ReplicationArguments {
  std::string corpus, store, holdout, out;
  std::vector<std::string> features;
  ReplicationOptions options;
  bool show_images = false;
  bool json = false;
};

void write_report(const ReplicationArguments& arguments, const ReplicationAudit& audit,
                  const RecordStore& store, const ReportFolder& folder) {
  std::vector<std::vector<PicturePair>> pictures;
  if (arguments.show_images)
    for (const ReplicationResult& result : audit.results)
      pictures.push_back(picture_pairs(audit, result, nearest_images(result, kShownImages),
                                       arguments.corpus, store, arguments.options.count));
  const fs::path page = folder.path() / "replication.html";
  nlohmann::ordered_json json = to_json(audit);
  json["report"] = page.string();
  json["images_listed"] = (folder.path() / "replication.csv").string();
  folder.write("replication.csv", replication_csv(audit));
  folder.write("replication.html", replication_html(audit, pictures));
  folder.write("replication.json", json.dump(2) + "\n");
  if (arguments.json) {
    std::cout << json.dump(2) << "\n";
    return;
  }
  for (const std::string& warning : audit.warnings) log_warning(warning);
  fmt::print("{}report, for the data holder's eyes only: {}\n", replication_text(audit),
             page.string());
}

/// Where nobody names a holdout: what prepare held out, if it did; true if it is taken. Rank 0
/// looks.
bool find_held_out(Communicator& ranks, ReplicationArguments& arguments) {
  if (!arguments.holdout.empty()) return false;
  const bool found = ranks.from_leader(held_out_beside(arguments.store) ? 1 : 0) != 0;
  arguments.holdout = found ? holdout_store(arguments.store).string() : kNoHoldout;
  if (found && ranks.leads())
    log_info(fmt::format("null: '{}', what prepare held out from training", arguments.holdout));
  return found;
}

void audit_on(Communicator& ranks, ReplicationArguments& arguments) {
  if (!ranks.alone()) set_threads_of_rank(0, ranks);
  const RecordStore store = open_shared_store(arguments.store, ranks);
  const bool held_out = find_held_out(ranks, arguments);
  std::optional<RecordStore> holdout;
  if (arguments.holdout != kNoHoldout) holdout = open_shared_store(arguments.holdout, ranks);
  std::optional<ReportFolder> folder;
  or_part(ranks, [&] {
    everywhere(ranks, [&] {
      (void)CorpusImages(arguments.corpus);  // refuses what is no corpus before a folder is made
      for (const std::string& name : arguments.features) {
        if (&name == &arguments.features.front()) arguments.options.spaces.clear();
        arguments.options.spaces.push_back(parse_enum<FeatureSpace>(name));
      }
    });
    on_leader(ranks, [&] {
      if (held_out) check_holdout_of(store, *holdout);
      folder.emplace(arguments.out.empty() ? ReportFolder::usual({}, arguments.store, "audit")
                                           : fs::path(arguments.out));
    });
  });
  install_stop_signals();
  const ReplicationAudit audit = audit_replication(
      arguments.corpus, store, holdout ? &*holdout : nullptr, arguments.options, &ranks);
  or_part(ranks,
          [&] { on_leader(ranks, [&] { write_report(arguments, audit, store, *folder); }); });
}

void run(ReplicationArguments& arguments) {
  if (arguments.json) set_quiet(true);
  with_ranks([&](const std::shared_ptr<Communicator>& ranks) { audit_on(*ranks, arguments); });
}

}  // namespace

void add_audit_replication(CLI::App& audit) {
  CLI::App* sub = audit.add_subcommand(
      "replication", "nearest private records of synthetic images, for the data holder's eyes");
  auto arguments = std::make_shared<ReplicationArguments>();
  sub->add_option("corpus", arguments->corpus, "folder or shards that sample wrote")
      ->required()
      ->type_name("CORPUS");
  sub->add_option("--store", arguments->store, "record store that the network was trained on")
      ->required()
      ->type_name("STORE");
  sub->add_option(
         "--holdout", arguments->holdout,
         "record store of the same population that it has not seen (default: what prepare "
         "held out, STORE-holdout; else, or for 'none', records against the other records)")
      ->type_name("STORE");
  sub->add_option("--features", arguments->features, "pixels, convolution (default: both)")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name("a,b");
  sub->add_option("--count", arguments->options.count,
                  "images of the corpus, and of the null; 0: all")
      ->capture_default_str()
      ->type_name("N");
  sub->add_option("--seed", arguments->options.seed, "of the choice of the null")
      ->capture_default_str();
  sub->add_option("--out", arguments->out, "folder for the report (default: STORE-audit)")
      ->type_name("FOLDER");
  sub->add_flag("--show-images", arguments->show_images,
                "put the nearest pairs on the page: synthetic image and private record");
  sub->add_flag("--json", arguments->json, "print the result as JSON");
  sub->callback([arguments] { run(*arguments); });
}

}  // namespace sfumato::cli
