#include "sfumato/mechanism/released_weights.h"

#include <ATen/core/Tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string_view>

#include "run/witness_folder.h"
#include "sfumato/core/error.h"
#include "sfumato/core/file.h"
#include "sfumato/core/log.h"
#include "sfumato/core/sha256.h"
#include "sfumato/core/text.h"
#include "sfumato/run/store_notes.h"

namespace sfumato {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr std::size_t kDigits = 16;  // of a digest
constexpr std::size_t kLeastValues = 4;
constexpr std::string_view kTensors = "\"tensors\":\"";
constexpr std::string_view kClassTable = "embedding.weight";

/// Beside the witnesses of the runs. A line each, only ever added.
fs::path notes_of(const fs::path& store) {
  return witness_folder(store) / "released_weights.jsonl";
}

void add_text(Sha256& hash, const std::string& text) {
  hash.update(fmt::format("{}:", text.size()));
  hash.update(text);
}

/// The precision that values have, or are rounded to. Values of 16 bits are hashed as such.
enum class Kept : char { kSingle = 's', kHalf = 'h', kBrain = 'b' };

TensorDigest digest_of(Kept kept, const at::Tensor& values) {
  Sha256 hash;
  const char tag = static_cast<char>(kept);
  hash.update(&tag, 1);
  hash.update(values.const_data_ptr(), values.nbytes());
  TensorDigest digest = 0;
  const auto bytes = hash.finish();
  for (std::size_t i = 0; i < sizeof digest; ++i) digest = digest << 8 | bytes[i];
  return digest;
}

/// Whether it has at least `wanted` different values.
template <typename Bits>
bool tells(const at::Tensor& values, std::size_t wanted) {
  const std::span all(static_cast<const Bits*>(values.const_data_ptr()),
                      static_cast<std::size_t>(values.numel()));
  std::vector<Bits> seen;
  for (const Bits value : all) {
    if (std::ranges::find(seen, value) != seen.end()) continue;
    seen.push_back(value);
    if (seen.size() == wanted) return true;
  }
  return false;
}
bool tells(Kept kept, const at::Tensor& values) {
  return kept == Kept::kSingle ? tells<std::uint32_t>(values, 2)
                               : tells<std::uint16_t>(values, kLeastValues);
}

/// Tensors as float32 in one piece; of a class table its rows as well, since another set of classes
/// keeps some of them.
std::vector<at::Tensor> pieces_of(const NamedTensors& weights) {
  std::vector<at::Tensor> pieces;
  for (const auto& [name, given] : weights) {
    const at::Tensor value = given.detach().cpu().to(at::kFloat).contiguous();
    const bool by_rows = value.dim() == 2 && name.ends_with(kClassTable);
    for (std::int64_t row = 0; by_rows && row < value.size(0); ++row)
      pieces.push_back(value.select(0, row));
    pieces.push_back(value);
  }
  return pieces;
}

/// What `digests` adds of each piece.
template <typename Digests>
std::vector<TensorDigest> digests_by_piece(const NamedTensors& weights, const Digests& digests) {
  std::vector<TensorDigest> found;
  for (const at::Tensor& piece : pieces_of(weights))
    digests(piece, [&](Kept kept, const at::Tensor& values) {
      if (tells(kept, values)) found.push_back(digest_of(kept, values));
    });
  return found;
}

/// Of the values as they are: those of 16 bits also as what they were rounded to.
std::vector<TensorDigest> digests_as_found(const NamedTensors& weights) {
  return digests_by_piece(weights, [](const at::Tensor& value, const auto& add) {
    add(Kept::kSingle, value);
    const at::Tensor half = value.to(at::kHalf), brain = value.to(at::kBFloat16);
    if (half.to(at::kFloat).equal(value)) add(Kept::kHalf, half);
    if (brain.to(at::kFloat).equal(value)) add(Kept::kBrain, brain);
  });
}

/// Calls `use` for every digest of tensors in a line, whatever else of the line is damaged.
template <typename Use>
void for_digests_in(std::string_view line, const Use& use) {
  for (std::size_t at = line.find(kTensors); at != line.npos; at = line.find(kTensors, at)) {
    at += kTensors.size();
    const std::string_view text = line.substr(at, std::min(line.find('"', at), line.size()) - at);
    for (std::size_t i = 0; i + kDigits <= text.size(); i += kDigits) {
      TensorDigest digest = 0;
      const char* begin = text.data() + i;
      const auto read = std::from_chars(begin, begin + kDigits, digest, 16);
      if (read.ec == std::errc() && read.ptr == begin + kDigits) use(digest);
    }
  }
}

template <typename Use>
void for_lines_in(const std::string& text, const Use& use) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    use(std::string_view(text).substr(at, end - at));
    at = end + 1;
  }
}

std::string notes_text(const fs::path& store) {
  return fs::exists(notes_of(store)) ? read_file(notes_of(store)) : std::string();
}

KnownWeights read_note(const Json& line) {
  KnownWeights note;
  note.run_id = line.at("run").get<std::string>();
  note.noted = line.at("released").get<std::string>();
  note.is_private = line.at("private").get<bool>();
  note.charged_steps = line.at("charged_steps").get<std::int64_t>();
  if (note.is_private) note.plan = MechanismPlan::from_json(line.at("plan"));
  return note;
}

/// The witnesses that speak of some weights, as they come: for each run the one that costs most.
class Matches {
 public:
  void add(KnownWeights note) {
    for (KnownWeights& known : found_)
      if (known.run_id == note.run_id && known.is_private == note.is_private) {
        if (note.charged_steps > known.charged_steps) known = std::move(note);
        return;
      }
    found_.push_back(std::move(note));
  }
  void add_unreadable(std::string defect) {
    found_.emplace_back().defect = std::move(defect);
    found_.back().run_id = found_.back().defect;
  }
  std::vector<KnownWeights> take() { return std::move(found_); }
  bool empty() const { return found_.empty(); }

 private:
  std::vector<KnownWeights> found_;
};

/// What tells weights.
struct Sought {
  explicit Sought(const NamedTensors& weights) : whole(network_digest(weights)) {
    const std::vector<TensorDigest> digests = digests_as_found(weights);
    tensors.insert(digests.begin(), digests.end());
  }
  std::unordered_set<TensorDigest> tensors;
  std::string whole;
};

/// `torn`: the last line that is cut short and speaks of them.
void find_in(const fs::path& file, const std::string& text, const Sought& sought, Matches& found,
             std::string& torn) {
  std::int64_t number = 0;
  for_lines_in(text, [&](std::string_view line) {
    ++number;
    bool matches = line.find(sought.whole) != line.npos;
    for_digests_in(
        line, [&](TensorDigest digest) { matches = matches || sought.tensors.contains(digest); });
    if (!matches) return;
    const auto defect = [&](const std::string& what) {
      return fmt::format("'{}', line {}: {}", file.string(), number, what);
    };
    try {
      const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
      // A line that a crash cut short is repeated by the run that goes on.
      if (json.is_discarded())
        torn = defect("is damaged");
      else
        found.add(read_note(json));
    } catch (const std::exception& error) {
      found.add_unreadable(defect(error.what()));
    }
  });
}

}  // namespace

std::string network_digest(const NamedTensors& given) {
  NamedTensors weights = given;
  std::sort(weights.begin(), weights.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  Sha256 hash;
  for (const auto& [name, tensor] : weights) {
    const at::Tensor value = tensor.detach().cpu().to(at::kFloat).contiguous();
    add_text(hash, name);
    add_text(hash, fmt::format("{}", fmt::join(value.sizes().begin(), value.sizes().end(), ",")));
    hash.update(value.const_data_ptr(), value.nbytes());
  }
  return hex(hash.finish());
}

std::vector<TensorDigest> digests_of_copies(const NamedTensors& weights) {
  return digests_by_piece(weights, [](const at::Tensor& value, const auto& add) {
    add(Kept::kSingle, value);
    const at::Tensor half = value.to(at::kHalf);
    add(Kept::kHalf, half);
    add(Kept::kBrain, value.to(at::kBFloat16));
    add(Kept::kBrain, half.to(at::kFloat).to(at::kBFloat16));
  });
}

WeightsMemory::WeightsMemory(fs::path store, const NamedTensors& start, bool start_is_public)
    : store_(std::move(store)) {
  try {
    check_witness_folder(store_);
    writable_ = true;
  } catch (const DataError& error) {
    log_warning(fmt::format(
        "the record store keeps no witness of the weights that this run writes ({}): a copy of "
        "them without its privacy card could be taken for public weights",
        error.what()));
  }
  const std::vector<TensorDigest> digests = digests_of_copies(start);
  start_.insert(digests.begin(), digests.end());
  if (start_is_public || !writable_) return;
  std::unordered_set<TensorDigest> known;
  try {
    for_lines_in(notes_text(store_), [&](std::string_view line) {
      for_digests_in(line, [&](TensorDigest digest) {
        if (start_.contains(digest)) known.insert(digest);
      });
    });
  } catch (const DataError&) {
    // Not known then: they are noted once more.
  }
  start_ = std::move(known);
}

bool WeightsMemory::is_new(TensorDigest digest, std::int64_t charged_steps) const {
  if (start_.contains(digest)) return false;
  const auto found = noted_.find(digest);
  return found == noted_.end() || found->second < charged_steps;
}

/// What earlier sessions of the run noted need not be noted again. What cannot be read is.
void WeightsMemory::read_own_notes(const KnownWeights& what) {
  if (std::exchange(has_read_own_, true)) return;
  try {
    const std::string text = notes_text(store_);
    ends_torn_ = !text.empty() && !text.ends_with('\n');
    for_lines_in(text, [&](std::string_view line) {
      if (line.find(kTensors) == line.npos) return;
      const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
      if (!json.is_object() || json.value("run", Json()) != Json(what.run_id) ||
          json.value("private", Json()) != Json(what.is_private) ||
          (what.is_private && json.value("plan", Json()) != what.plan.to_json()))
        return;
      const Json charged = json.value("charged_steps", Json());
      if (!charged.is_number_integer()) return;
      for_digests_in(line, [&](TensorDigest digest) {
        std::int64_t& most = noted_.try_emplace(digest, -1).first->second;
        most = std::max(most, charged.get<std::int64_t>());
      });
    });
  } catch (const std::exception&) {
    noted_.clear();
    ends_torn_ = true;  // at worst a blank line
  }
}

void WeightsMemory::remember(
    const KnownWeights& what,
    const std::vector<std::reference_wrapper<const NamedTensors>>& weights) {
  if (!writable_) return;
  read_own_notes(what);
  std::string digits;
  for (const NamedTensors& each : weights)
    for (const TensorDigest digest : digests_of_copies(each)) {
      if (!is_new(digest, what.charged_steps)) continue;
      noted_[digest] = what.charged_steps;
      digits += fmt::format("{:016x}", digest);
    }
  if (digits.empty()) return;
  const Json line = {{"run", what.run_id},         {"released", utc_now()},
                     {"private", what.is_private}, {"charged_steps", what.charged_steps},
                     {"tensors", digits},          {"plan", what.plan.to_json()}};
  try {
    make_folder(witness_folder(store_), 0700);
    // After a line that a crash cut short, a new one begins.
    const bool torn = std::exchange(ends_torn_, false);
    AppendFile(notes_of(store_), 0600).append((torn ? "\n" : "") + line.dump() + "\n");
  } catch (const DataError& error) {
    noted_.clear();
    throw DataError(fmt::format(
        "the record store cannot keep a witness of weights that are about to be written ({}), and "
        "without it a copy of them would pass for public weights: nothing is written. Free space, "
        "or make '{}' a file that can be written, and continue with --resume",
        error.what(), notes_of(store_).string()));
  }
}

std::vector<KnownWeights> find_known_weights(const fs::path& store, const NamedTensors& weights) {
  std::optional<Sought> sought;
  Matches found;
  std::string torn;
  // Parts of a store keep their own witnesses, and have records in common with the whole.
  for (const fs::path& related : related_stores(store)) {
    const std::string text = notes_text(related);
    if (text.empty()) continue;
    if (!sought) sought.emplace(weights);
    find_in(notes_of(related), text, *sought, found, torn);
  }
  if (!torn.empty() && found.empty()) found.add_unreadable(torn);
  return found.take();
}

}  // namespace sfumato
