#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/light/program.h"
#include "cli/subcommands.h"
#include "sfumato/core/bound_text.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/core/plural.h"
#include "sfumato/core/text.h"
#include "sfumato/data/holdout.h"
#include "sfumato/data/inspect_store.h"
#include "sfumato/data/record_store.h"
#include "sfumato/data/store_manifest.h"
#include "sfumato/generate/families.h"
#include "sfumato/generate/network_description.h"
#include "sfumato/io/json_file.h"
#include "sfumato/io/safetensors.h"
#include "sfumato/io/weights_file.h"
#include "sfumato/privacy/ledger.h"
#include "sfumato/privacy/mechanism.h"
#include "sfumato/report/privacy_card.h"
#include "sfumato/run/checkpoint.h"

namespace sfumato::cli {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

/// What was found: for a program, and for a person.
struct Finding {
  Json json;
  std::string text;
};

/// Something that `inspect` knows by sight.
struct Kind {
  const char* name;
  const char* looks_like;
  bool (*recognise)(const fs::path&);
  Finding (*describe)(const fs::path&);
};

// safetensors -------------------------------------------------------------------------------------

std::string shape_text(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

Json tensor_totals(const SafetensorsSet& set) {
  int64_t elements = 0, bytes = 0;
  for (const std::string& name : set.names()) {
    elements += set.info(name).element_count();
    bytes += static_cast<int64_t>(set.info(name).bytes.size());
  }
  return {{"tensors", set.names().size()}, {"elements", elements}, {"bytes", bytes}};
}

std::string totals_text(const Json& totals) {
  return fmt::format("{} tensors, {} elements, {}", totals["tensors"].get<int64_t>(),
                     totals["elements"].get<int64_t>(), human_bytes(totals["bytes"].get<double>()));
}

bool is_safetensors(const fs::path& path) {
  const std::string name = path.filename().string();
  return fs::is_regular_file(path) &&
         (name.ends_with(".safetensors") ||
          (name.find(".safetensors.index.") != std::string::npos && name.ends_with(".json")));
}

Finding describe_safetensors(const fs::path& path) {
  const SafetensorsSet set(path);
  Finding out{tensor_totals(set), ""};
  out.text = fmt::format("safetensors '{}': {}\n", path.string(), totals_text(out.json));
  for (const std::string& name : set.names()) {
    const TensorInfo& info = set.info(name);
    out.json["list"].push_back(
        {{"name", name}, {"dtype", std::string(dtype_name(info.dtype))}, {"shape", info.shape}});
    out.text +=
        fmt::format("  {:<5} {:<22} {}\n", dtype_name(info.dtype), shape_text(info.shape), name);
  }
  return out;
}

// Networks ----------------------------------------------------------------------------------------

/// What is known of one network: its description, and how many weights lie beside it.
Finding describe_one(const FoundNetwork& network) {
  const auto& [family, file, says] = network;
  const fs::path folder = file.parent_path();
  Finding out;
  out.json["family"] = family->name;
  out.json["class_name"] = says.class_name;
  out.json["channels"] = says.channels;
  out.json["image_size"] = nullptr;  // [height, width]; a network may not say
  if (says.size) out.json["image_size"] = *says.size;
  out.json["classes"] = says.classes;
  out.json["config"] = says.config;
  out.text = fmt::format("network '{}': {} ({})\n", folder.string(), says.class_name, family->name);
  const auto line = [&](const std::string& what, const std::string& text) {
    out.text += fmt::format("  {:<11} {}\n", what, text);
  };
  for (const auto& [what, text] : says.lines) line(what, text);
  fs::path weights;
  try {
    weights = find_weights(folder);
  } catch (const DataError& error) {  // a folder without weights is worth a look, too
    log_warning(error.what());
  }
  if (!weights.empty()) out.json["weights"] = tensor_totals(SafetensorsSet(weights));
  line("weights", weights.empty() ? "none here" : totals_text(out.json["weights"]));
  return out;
}

/// The network that draws, and those beside it that it learned from.
Finding describe_network(const fs::path& path) {
  Finding out;
  for (const FoundNetwork& network : find_networks(path)) {
    Finding each = describe_one(network);
    out.text += each.text;
    if (out.json.empty())
      out.json = std::move(each.json);
    else
      out.json["beside"].push_back(std::move(each.json));
  }
  if (const fs::path card = path / "privacy_card.json"; fs::exists(card)) {
    out.json["privacy_card"] = read_privacy_card(card);
    out.text += fmt::format("  privacy     {}\n", card_banner(out.json["privacy_card"]).headline);
  }
  return out;
}

bool is_run_checkpoint(const fs::path& path) {
  return fs::is_regular_file(path / "state.json") && fs::exists(path / "model.safetensors");
}

Finding describe_run_checkpoint(const fs::path& path) {
  const bool complete = fs::exists(path / "DONE");
  const nlohmann::json state = read_json(path / "state.json");
  Finding out{{{"complete", complete}, {"step", nullptr}}, ""};
  if (state.is_object() && state.contains("step")) out.json["step"] = state["step"];
  out.text = fmt::format("checkpoint of a run '{}' (private), step {}{}\n", path.string(),
                         out.json["step"].dump(),
                         complete ? "" : ", INCOMPLETE: its DONE mark is missing");
  for (const std::string& part : checkpoint_groups(state, path / "state.json")) {
    const fs::path file = path / (part + ".safetensors");
    if (!fs::exists(file)) continue;
    out.json[part] = tensor_totals(SafetensorsSet(file));
    out.text += fmt::format("  {:<11} {}\n", part, totals_text(out.json[part]));
  }
  return out;
}

// Ledger and run ----------------------------------------------------------------------------------

bool is_ledger(const fs::path& path) {
  if (!fs::is_regular_file(path)) return false;
  if (path.filename() == "ledger.jsonl") return true;
  // By another name: its first line freezes a plan.
  std::ifstream file(path, std::ios::binary);
  std::string line(4096, '\0');
  file.read(line.data(), static_cast<std::streamsize>(line.size()));
  line.resize(static_cast<size_t>(file.gcount()));
  return line.starts_with("{") && line.find("\"previous\":") != std::string::npos &&
         line.find("\"plan\":") != std::string::npos;
}

Finding describe_ledger(const fs::path& path) {
  const LedgerSummary ledger = verify_ledger(path);
  Finding out{{{"run", ledger.run_id},
               {"created", ledger.created},
               {"lines", ledger.lines},
               {"charged_steps", ledger.charged_steps},
               {"max_charged_steps", ledger.max_charged_steps},
               {"sessions", ledger.sessions.size()},
               {"epsilon", nullptr},
               {"delta", nullptr},
               {"insecure", ledger.insecure()},
               {"problems", ledger.problems}},
              ""};
  out.text = fmt::format("ledger '{}': run {}, created {}\n  charged     {} of {} in {}\n",
                         path.string(), ledger.run_id, ledger.created, ledger.charged_steps,
                         counted(ledger.max_charged_steps, "step"),
                         counted(std::ssize(ledger.sessions), "session"));
  if (ledger.problems.empty()) {
    const auto plan = MechanismPlan::from_json(nlohmann::json::parse(ledger.plan));
    const double epsilon = plan.epsilon_after(ledger.charged_steps);
    out.json["delta"] = plan.delta;
    if (std::isfinite(epsilon)) out.json["epsilon"] = epsilon;
    out.text += fmt::format("  privacy     epsilon {} at delta {}{}\n", epsilon_text(epsilon),
                            plan.delta, ledger.insecure() ? ", VOID: a test key was used" : "");
  }
  for (const std::string& problem : ledger.problems)
    out.text += fmt::format("  PROBLEM     {}\n", problem);
  out.text += fmt::format("  more        sfumato ledger show {}\n", path.string());
  return out;
}

bool is_run(const fs::path& path) {
  return fs::is_regular_file(path / "config.yaml") &&
         (fs::is_directory(path / "private") || fs::exists(path / "ledger.jsonl") ||
          fs::is_directory(path / "release"));
}

Finding describe_run(const fs::path& path) {
  Finding out{{{"ledger", nullptr}, {"newest_checkpoint", nullptr}, {"release", nullptr}}, ""};
  out.text = fmt::format("run '{}'\n", path.string());
  if (fs::exists(path / "ledger.jsonl")) {
    Finding ledger = describe_ledger(path / "ledger.jsonl");
    out.json["ledger"] = ledger.json;
    out.text += ledger.text;
  } else {
    out.text += "no ledger: NOT PRIVATE, or never started\n";
  }
  if (const auto newest = newest_checkpoint(path / "private" / "checkpoints")) {
    Finding checkpoint = describe_run_checkpoint(*newest);
    out.json["newest_checkpoint"] = checkpoint.json;
    out.text += checkpoint.text;
  } else {
    out.text += "no complete checkpoint\n";
  }
  if (may_hold_networks(path / "release")) {
    Finding release = describe_network(path / "release");
    out.json["release"] = release.json;
    out.text += "release, which may leave:\n" + release.text;
  } else {
    out.text += "no release yet\n";
  }
  return out;
}

// Data --------------------------------------------------------------------------------------------

Finding describe_record_store(const fs::path& path) {
  Finding out;
  out.text = describe_store(path);  // checks every checksum
  const RecordStore store = RecordStore::open(path);
  std::vector<int64_t> counts(static_cast<size_t>(store.num_classes()));
  if (!counts.empty())
    for (int64_t i = 0; i < store.count(); ++i) ++counts[static_cast<size_t>(store.label(i))];
  out.json = {{"records", store.count()},
              {"height", store.height()},
              {"width", store.width()},
              {"channels", store.channels()},
              {"num_classes", store.num_classes()},
              {"class_names", store.class_names()},
              {"class_names_from", store.layout().class_names_from},
              {"classes_that_may_be_empty", store.layout().classes_that_may_be_empty},
              {"records_per_class", counts},
              {"unit", store.unit()},
              {"records_per_unit", store.records_per_unit()},
              {"held_out", is_holdout(store)},
              {"manifest_hash", store.manifest_hash()}};
  return out;
}

bool is_corpus(const fs::path& path) {
  return fs::exists(path / "lineage.json") || fs::exists(path / ".sampling.json") ||
         (fs::exists(path / "metadata.csv") && fs::is_directory(path / "images"));
}

Finding describe_corpus(const fs::path& path) {
  std::map<std::string, int64_t> classes;
  int64_t shards = 0, images = 0;
  if (fs::is_directory(path / "images"))
    for (const auto& entry : fs::recursive_directory_iterator(path / "images"))
      if (entry.path().extension() == ".png")
        ++classes[entry.path().parent_path().filename().string()], ++images;
  for (const auto& entry : fs::directory_iterator(path))
    shards += entry.path().extension() == ".tar" ? 1 : 0;
  const bool finished = fs::exists(path / "lineage.json") && !fs::exists(path / ".sampling.json");
  const nlohmann::ordered_json card = read_privacy_card(path / "privacy_card.json");
  Finding out{{{"finished", finished},
               {"images", images},
               {"images_per_class", classes},
               {"shards", shards},
               {"privacy_card", card}},
              ""};
  out.text = fmt::format("corpus '{}'{}\n", path.string(),
                         finished ? "" : ", UNFINISHED: run the same sample command again");
  if (images > 0) out.text += fmt::format("  images      {}\n", images);
  if (shards > 0) out.text += fmt::format("  shards      {}\n", shards);
  for (const auto& [name, count] : classes) out.text += fmt::format("    {:<12} {}\n", name, count);
  out.text += fmt::format("  privacy     {}\n", card_banner(card).headline);
  return out;
}

// All of it ---------------------------------------------------------------------------------------

// In order: a run holds a release, a corpus may hold anything.
constexpr Kind kKinds[] = {
    {"record_store", "record store (manifest.json, records.bin)", is_record_store,
     describe_record_store},
    {"run_checkpoint", "checkpoint of a run (state.json, model.safetensors)", is_run_checkpoint,
     describe_run_checkpoint},
    {"run", "run directory (config.yaml, private/, release/)", is_run, describe_run},
    {"corpus", "corpus (lineage.json, metadata.csv, images/ or shards)", is_corpus,
     describe_corpus},
    {"network", "network of a generator (config.json or model_index.json)", may_hold_networks,
     describe_network},
    {"safetensors", "safetensors file or index", is_safetensors, describe_safetensors},
    {"ledger", "ledger (ledger.jsonl)", is_ledger, describe_ledger},
};

void inspect(const std::string& name, bool json) {
  const fs::path path = name;
  std::string known;
  for (const Kind& kind : kKinds) known += fmt::format("\n  {}", kind.looks_like);
  if (!fs::exists(path))
    throw DataError(fmt::format("'{}' does not exist; inspect knows:{}", name, known));
  for (const Kind& kind : kKinds) {
    if (!kind.recognise(path)) continue;
    if (json) set_quiet(true);
    Finding found = kind.describe(path);
    if (!json) {
      fmt::print("{}", found.text);
      return;
    }
    Json out{{"kind", kind.name}, {"path", name}};
    out.update(found.json);
    fmt::print("{}\n", out.dump(2));
    return;
  }
  throw DataError(fmt::format("'{}' is nothing that inspect knows:{}", name, known));
}

}  // namespace

void add_inspect(CLI::App& app) {
  struct InspectArguments {
    std::string path;
    bool json = false;
  };
  auto arguments = std::make_shared<InspectArguments>();
  CLI::App* sub = add_subcommand(app, "inspect");
  sub->add_option("PATH", arguments->path, "file or folder")->required();
  sub->add_flag("--json", arguments->json, "print one JSON object");
  sub->callback([arguments] { inspect(arguments->path, arguments->json); });
}

}  // namespace sfumato::cli
