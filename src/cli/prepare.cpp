#include <fmt/format.h>

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/light/program.h"
#include "cli/subcommands.h"
#include "sfumato/config/paths.h"
#include "sfumato/config/settings_help.h"
#include "sfumato/core/log.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/core/text.h"
#include "sfumato/data/holdout.h"
#include "sfumato/data/prepare.h"
#include "sfumato/generate/families.h"

namespace sfumato::cli {
namespace {

PrepareOptions options_of(const Config& config) {
  const DataSettings& data = config.data;
  PrepareOptions options;
  options.source = data.source();
  options.labels = data.labels();
  options.label_column = data.label_column();
  options.users = data.users();
  options.format = data.format();
  options.store = data.store();
  options.image_size = data.image_size();
  options.channels = data.channels();
  options.num_classes = data.num_classes();
  options.class_names = data.class_names();
  options.merge_folders = data.merge_folders();
  options.allow_empty_classes = data.allow_empty_classes();
  options.records_per_user = data.records_per_user();
  options.holdout = data.holdout();
  options.adjacency = config.mechanism.adjacency();
  options.skip_unreadable = data.skip_unreadable();
  options.keep_damaged = data.damaged() == DamagedPictures::kKeep;
  if (data.depth() == DepthRule::kMinMax)
    options.depth_range.emplace(data.depth_range().at(0), data.depth_range().at(1));
  options.max_megapixels = data.max_megapixels();
  options.deduplicate = data.deduplicate();
  options.threads = static_cast<int>(config.performance.threads());
  return options;
}

void print_summary(const PrepareReport& report, const std::string& store) {
  const auto line = [](std::int64_t count, const char* what) {
    if (count > 0) fmt::print("  {:>9}  {}\n", count, what);
  };
  fmt::print(
      "record store '{}' is ready ({}). These counts are about private data: for your eyes, "
      "not for publication.\n",
      store, human_duration(report.seconds));
  line(report.found, "images found");
  line(report.kept, "records kept");
  line(report.held_out, fmt::format("records held out from training, in '{}': private too, and "
                                    "nothing protects numbers computed from them",
                                    holdout_store(store).string())
                            .c_str());
  line(report.duplicates, "exact duplicates dropped");
  line(report.unreadable, "unreadable images skipped");
  line(report.damaged_skipped, "of these damaged");
  line(report.damaged_kept, "damaged images kept as the decoder mended them");
  if (report.depth.images > 0)
    line(report.depth.images, fmt::format("images with samples of 16 bits, between {} and {}",
                                          report.depth.min, report.depth.max)
                                  .c_str());
  line(report.depth.equal_at_8_bits,
       "records that differ from another in what 8 bits cut off only");
  line(report.over_user_bound, "images over the bound of their user dropped");
  line(report.users, "users");
  line(report.users_held_out, "users held out");
  if (!report.kept_by_bound.empty())
    fmt::print("  {:>9}  records_per_user: {}; before duplicates\n", "",
               kept_by_bound_text(report.kept_by_bound));
  line(report.users_alike, "groups of user ids that differ in spaces or case alone (see above)");
  line(report.other_files,
       ("other files not looked at: " + unread_files_text(report.unread_files)).c_str());
  line(report.label_conflicts,
       "records whose pixels appear under another label too; each counts "
       "as an image of its own");
  fmt::print("unit of privacy: {}\n", report.unit);
}

constexpr const char* kUsersExample =
    "whose each image is (data.users), a CSV with these columns, others beside them, in any "
    "order:\n"
    "  file,user\n"
    "  cat/1.jpg,anna\n"
    "  cat/2.jpg,anna\n"
    "  dog/1.jpg,\"Ben, the elder\"\n"
    "The files are named as from data.source; every image has a line, and every line an image.\n\n";

}  // namespace

void add_prepare(CLI::App& app) {
  struct Arguments {
    ConfigOptions config;
    bool accept_class_names = false;
    bool json = false;
  };
  auto* command = add_subcommand(app, "prepare");
  auto arguments = std::make_shared<Arguments>();
  add_config_options(*command, arguments->config);
  command->footer([] { return kUsersExample + settings_help_of(sections_read_by("prepare")); });
  command->add_flag(
      "--accept-class-names", arguments->accept_class_names,
      "Take the class names found in the source as public; the privacy card says so.");
  command->add_flag("--json", arguments->json, "Print the report as JSON (private counts).");
  command->callback([arguments] {
    const auto config = load(arguments->config);
    require_paths(
        {&config->data.source, &config->data.labels, &config->data.users, &config->model.init});
    adopt_pretrained_image_settings(*config);
    if (arguments->json) set_quiet(true);
    install_stop_signals();
    PrepareOptions options = options_of(*config);
    options.accept_class_names = arguments->accept_class_names;
    const PrepareReport report = prepare(options);
    if (arguments->json)
      fmt::print("{}\n", to_json(report).dump(2));
    else
      print_summary(report, config->data.store());
  });
}

}  // namespace sfumato::cli
