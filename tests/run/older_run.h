#pragma once
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "sfumato/config/config.h"
#include "sfumato/config/public_settings.h"
#include "sfumato/core/file.h"
#include "sfumato/core/sha256.h"
#include "sfumato/io/json_file.h"
#include "sfumato/report/privacy_card.h"
#include "src/run/release_page.h"

namespace sfumato::test {

/// A line of a ledger, whose fields but for its own hash are given, as a ledger holds it.
inline std::string sealed(nlohmann::ordered_json line) {
  line.erase("sha256");
  const std::string body = line.dump(-1, ' ', true);
  return body.substr(0, body.size() - 1) + ",\"sha256\":\"" + sha256_hex(body) + "\"}";
}

/// Turns a run into what versions wrote that noted neither the initial weights nor the release:
/// ledger, checkpoints, card and the store's witness of it, every hash in them made anew. Of
/// `version`, where it is named.
inline void make_older(const std::filesystem::path& run, const std::filesystem::path& store,
                       const std::string& version = {}) {
  using Json = nlohmann::ordered_json;
  std::map<std::string, std::string> renamed;  // hashes of lines
  std::string previous(64, '0'), text, run_id;
  std::int64_t lines = 0;
  std::istringstream ledger(read_file(run / "ledger.jsonl"));
  for (std::string line; std::getline(ledger, line);) {
    Json json = Json::parse(line);
    const std::string old_hash = sha256_hex(line);
    if (json["kind"] == "create") run_id = json["run"].get<std::string>();
    if (json["kind"] == "release") {
      renamed[old_hash] = previous;
      continue;
    }
    json.erase("initial_weights");
    json.erase("initial_folders");
    if (!version.empty() && json.contains("version")) json["version"] = version;
    json["line"] = ++lines;
    json["previous"] = previous;
    const std::string line_now = sealed(json);
    previous = renamed[old_hash] = sha256_hex(line_now);
    text += line_now + "\n";
  }
  write_file_atomic(run / "ledger.jsonl", text);
  for (const auto& entry : std::filesystem::directory_iterator(run / "private/checkpoints")) {
    nlohmann::json state = read_json(entry.path() / "state.json");
    state["ledger_head"] = renamed.at(state["ledger_head"].get<std::string>());
    write_json_atomic(entry.path() / "state.json", state);
  }
  Json card = Json::parse(read_file(run / "release/privacy_card.json"));
  card["ledger_head_hash"] = renamed.at(card["ledger_head_hash"].get<std::string>());
  card.erase("initial_weights");
  if (!version.empty()) card["code"]["version"] = version;
  write_json_atomic(run / "release/privacy_card.json", card);
  write_file_atomic(run / "release/privacy_card.md", card_markdown(card));
  std::string page =
      release_page(card, public_settings_yaml(*load_config(run / "config.yaml", {})));
  const std::string writer = "<footer>Written by sfumato ";
  if (!version.empty()) {
    const std::size_t at = page.rfind(writer) + writer.size();
    page.replace(at, page.find(' ', at) - at, version);
  }
  write_file_atomic(run / "release/report.html", page);
  const std::filesystem::path note_path = store / "uses" / (run_id + ".json");
  Json note = Json::parse(read_file(note_path));
  note["lines"] = lines;
  note["head"] = previous;
  for (const char* newer : {"reserved_steps", "stages", "trail"}) note.erase(newer);
  write_json_atomic(note_path, note);
}

}  // namespace sfumato::test
