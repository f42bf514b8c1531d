#include "run/checkpoint_binding.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string_view>

#include "sfumato/core/sha256.h"
#include "sfumato/core/text.h"

namespace sfumato {
namespace {

/// Length first, so that no two lists of parts read the same.
void add_text(Sha256& hash, const std::string& text) {
  hash.update(fmt::format("{}:", text.size()));
  hash.update(text);
}

/// What ledgers know an element type by.
std::string_view hashed_name(TensorDtype dtype) {
  switch (dtype) {
    case TensorDtype::kF32: return "Float";
    case TensorDtype::kF64: return "Double";
    case TensorDtype::kF16: return "Half";
    case TensorDtype::kBF16: return "BFloat16";
    case TensorDtype::kI64: return "Long";
    case TensorDtype::kI32: return "Int";
    case TensorDtype::kU8: return "Byte";
    case TensorDtype::kBool: return "Bool";
    default: return dtype_name(dtype);
  }
}

void add_group(Sha256& hash, const TensorGroup& group) {
  add_text(hash, fmt::format("{} {}", group.name, group.tensors.size()));
  for (const TensorInfo& tensor : group.tensors) {
    add_text(hash, tensor.name);
    add_text(hash, fmt::format("{} [{}]", hashed_name(tensor.dtype), fmt::join(tensor.shape, ",")));
    hash.update(tensor.bytes.data(), tensor.bytes.size());
  }
}

}  // namespace

std::string checkpoint_sha256(const Checkpoint& checkpoint) {
  Sha256 hash;
  for (const TensorGroup& group : checkpoint.groups) add_group(hash, group);
  return hex(hash.finish());
}

std::int64_t last_checkpoint_step(const LedgerSummary& ledger) {
  std::int64_t last = -1;
  for (const LedgerPoint& point : ledger.history)
    if (point.checkpoint_step >= 0) last = point.checkpoint_step;
  return last;
}

std::string checkpoint_defect(const LedgerSummary& ledger, const Checkpoint& checkpoint,
                              std::int64_t step, std::int64_t& line) {
  const nlohmann::json& state = checkpoint.state;
  if (!state.is_object()) return "its state.json is damaged";
  const auto text = [&](const char* key) {
    return state.contains(key) && state[key].is_string() ? state[key].get<std::string>() : "";
  };
  const std::string head = text("ledger_head");
  const auto point = std::find_if(ledger.history.begin(), ledger.history.end(),
                                  [&](const LedgerPoint& p) { return p.hash == head; });
  if (point == ledger.history.end())
    return fmt::format(
        "the ledger lacks the line {} that it was saved at: the ledger was rolled back or "
        "replaced, or the checkpoint is another run's",
        head.empty() ? "(none noted)" : head);
  line = point - ledger.history.begin() + 1;
  if (state.value("charged_steps", nlohmann::json()) != point->charged_steps)
    return fmt::format("says {} charged steps, the ledger {} at line {}",
                       state.value("charged_steps", nlohmann::json()).dump(), point->charged_steps,
                       line);
  if (point->checkpoint_step != step || checkpoint.step != step)
    return fmt::format("is not the checkpoint of step {} that line {} of the ledger notes", step,
                       line);
  if (text("plan_hash") != ledger.plan_hash) return "belongs to another mechanism";
  if (const std::string found = checkpoint_sha256(checkpoint); found != point->checkpoint)
    return fmt::format(
        "its tensors (SHA-256 {}) are not those that line {} of the ledger notes ({}): they were "
        "replaced, and nothing is known of what made them",
        found, line, point->checkpoint.empty() ? "none" : point->checkpoint);
  return {};
}

}  // namespace sfumato
