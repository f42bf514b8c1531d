#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "cli/light/program.h"
#include "cli/subcommands.h"
#include "sfumato/core/file.h"
#include "sfumato/core/log.h"
#include "sfumato/run/side_by_side.h"

namespace sfumato::cli {
namespace {

struct CompareArguments {
  std::vector<std::string> runs;
  std::string out;
  bool with_private = false, json = false;
};

void run(const CompareArguments& arguments) {
  const SideBySide all =
      side_by_side({arguments.runs.begin(), arguments.runs.end()}, arguments.with_private);
  if (!arguments.out.empty())
    write_file_atomic(arguments.out, page_of(all), arguments.with_private ? 0600 : 0644);
  fmt::print("{}", arguments.json ? to_json(all).dump(2) + "\n" : text_of(all));
  if (!arguments.out.empty()) log_info(fmt::format("page: {}", arguments.out));
}

}  // namespace

void add_compare(CLI::App& app) {
  CLI::App* sub = add_subcommand(app, "compare");
  auto arguments = std::make_shared<CompareArguments>();
  sub->add_option("runs", arguments->runs, "run directories")->required()->type_name("RUN");
  sub->add_option("--out", arguments->out, "also write one page with pictures, this HTML file")
      ->type_name("FILE");
  sub->add_flag("--private", arguments->with_private,
                "with losses and other private numbers, and pictures of runs without privacy: then "
                "neither table nor page may leave");
  sub->add_flag("--json", arguments->json, "print one JSON object");
  sub->callback([arguments] { run(*arguments); });
}

}  // namespace sfumato::cli
