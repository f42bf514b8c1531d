#include <fmt/format.h>

#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/light/program.h"
#include "cli/subcommands.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/report/privacy_card.h"
#include "sfumato/run/selection_mark.h"
#include "sfumato/train/step_release.h"

namespace sfumato::cli {
namespace {

struct ReleaseArguments {
  std::string run;
  std::string out;
  std::int64_t step = 0;
  bool json = false;
};

void run(const ReleaseArguments& arguments) {
  namespace fs = std::filesystem;
  const fs::path folder =
      arguments.out.empty()
          ? fs::path(arguments.run) / fmt::format("release_step_{:06}", arguments.step)
          : fs::path(arguments.out);
  if (fs::exists(folder) && !fs::exists(folder / "privacy_card.json") && !fs::is_empty(folder))
    throw UsageError(fmt::format(
        "'{}' exists and holds no release that could be written again; choose another --out",
        folder.string()));
  check_may_leave(arguments.run, folder);
  const nlohmann::ordered_json card = release_step(arguments.run, arguments.step, folder);
  if (arguments.json) {
    const nlohmann::ordered_json out{{"release", folder.string()},
                                     {"step", arguments.step},
                                     {"status", card["status"]},
                                     {"epsilon", card["epsilon"]},
                                     {"delta", card["delta"]}};
    std::cout << out.dump(2) << "\n";
    return;
  }
  const CardBanner banner = card_banner(card);
  if (banner.banner == ReportBanner::kNotPrivate) log_warning("NOT PRIVATE: " + banner.headline);
  if (banner.banner == ReportBanner::kVoid) log_warning("VOID: " + banner.headline);
  if (banner.banner == ReportBanner::kPrivate)
    fmt::print("{}\nThis counts every step of the plan, whichever checkpoint is chosen. {}\n",
               banner.headline, kChosenCheckpoint);
  fmt::print("release: {}\n", folder.string());
}

}  // namespace

void add_release(CLI::App& app) {
  CLI::App* sub = add_subcommand(app, "release");
  auto arguments = std::make_shared<ReleaseArguments>();
  sub->add_option("run", arguments->run, "run directory")->required()->type_name("RUN");
  sub->add_option("--step", arguments->step, "the checkpoint's step")->required()->type_name("N");
  sub->add_option("--out", arguments->out, "folder (default: RUN/release_step_N)")
      ->type_name("DIR");
  sub->add_flag("--json", arguments->json, "print the result as JSON");
  sub->callback([arguments] { run(*arguments); });
}

}  // namespace sfumato::cli
