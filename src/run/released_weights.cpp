#include "sfumato/run/released_weights.h"

#include <ATen/core/Tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>

#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/log.h"
#include "sfumato/core/sha256.h"
#include "sfumato/core/text.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// Beside the notes of the runs. A line each, only ever added.
fs::path notes_of(const fs::path& store) { return store / "uses" / "released_weights.jsonl"; }

void add_text(Sha256& hash, const std::string& text) {
  hash.update(fmt::format("{}:", text.size()));
  hash.update(text);
}

std::string digest_of(NamedTensors weights, at::ScalarType kept_in) {
  std::sort(weights.begin(), weights.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  Sha256 hash;
  for (const auto& [name, given] : weights) {
    const at::Tensor value = given.detach().cpu().to(kept_in).to(at::kFloat).contiguous();
    add_text(hash, name);
    add_text(hash, fmt::format("{}", fmt::join(value.sizes().begin(), value.sizes().end(), ",")));
    hash.update(value.const_data_ptr(), value.nbytes());
  }
  return hex(hash.finish());
}

ReleasedWeights read_note(const Json& line) {
  ReleasedWeights note;
  note.run_id = line.at("run").get<std::string>();
  note.released = line.at("released").get<std::string>();
  note.is_private = line.at("private").get<bool>();
  note.plan = MechanismPlan::from_json(line.at("plan"));
  note.charged_steps = line.at("charged_steps").get<std::int64_t>();
  note.digests = line.at("digests").get<std::vector<std::string>>();
  return note;
}

}  // namespace

std::string network_digest(const NamedTensors& weights) { return digest_of(weights, at::kFloat); }

void remember_release(const fs::path& store, const NamedTensors& weights,
                      const std::string& initial_digest, ReleasedWeights note) {
  note.digests = {network_digest(weights)};
  if (note.digests.front() == initial_digest) return;
  try {
    if (const auto known = find_release(store, note.digests.front());
        known && known->run_id == note.run_id && known->charged_steps == note.charged_steps)
      return;
    for (const at::ScalarType kept_in : {at::kHalf, at::kBFloat16})
      note.digests.push_back(digest_of(weights, kept_in));
    const Json line = {{"run", note.run_id},
                       {"released", utc_now()},
                       {"private", note.is_private},
                       {"plan", note.plan.to_json()},
                       {"charged_steps", note.charged_steps},
                       {"digests", note.digests}};
    make_folder(store / "uses", 0700);
    // After a line that a crash cut short, a new one begins.
    const bool torn = fs::exists(notes_of(store)) && !read_file(notes_of(store)).ends_with('\n');
    AppendFile(notes_of(store), 0600).append((torn ? "\n" : "") + line.dump() + "\n");
  } catch (const DataError& error) {
    log_warning(
        fmt::format("the record store takes no note of the weights that leave ({}): a copy of them "
                    "without its privacy card could be taken for public weights",
                    error.what()));
  }
}

std::optional<ReleasedWeights> find_release(const fs::path& store, const std::string& digest) {
  const fs::path path = notes_of(store);
  if (!fs::exists(path)) return std::nullopt;
  std::optional<ReleasedWeights> found;
  std::istringstream lines(read_file(path));
  std::int64_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    // A line that a crash cut short names no weights that left: it is written before they are.
    const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (json.is_discarded()) continue;
    try {
      const ReleasedWeights note = read_note(json);
      // Of equal ones the one that costs most; weights without privacy are beyond any cost.
      if (std::ranges::find(note.digests, digest) == note.digests.end()) continue;
      if (!found ||
          (found->is_private && (!note.is_private || note.charged_steps > found->charged_steps)))
        found = note;
    } catch (const std::exception& error) {
      throw DataError(fmt::format(
          "'{}', line {}: {}; it remembers what left the runs on this store, so put it back",
          path.string(), number, error.what()));
    }
  }
  return found;
}

}  // namespace sfumato
