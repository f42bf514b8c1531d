#pragma once
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "sfumato/privacy/ledger.h"

namespace sfumato {

inline constexpr int kLedgerFormat = 1;
/// `previous` of the first line.
inline constexpr std::string_view kNoPrevious =
    "0000000000000000000000000000000000000000000000000000000000000000";

/// The plan as it is hashed: compact, in its own order of fields (as MechanismPlan::hash does).
std::string plan_text(const nlohmann::ordered_json& plan);
/// The bytes of one line without the newline: compact JSON that ends in its own SHA-256.
std::string seal_line(const nlohmann::ordered_json& line);
/// Whether the line ends in the SHA-256 of what is before it.
bool seal_holds(std::string_view line);

/// Whether it can be the path of a file in release/: short, of letters, digits and "._/-" only, so
/// that nothing private gets in.
bool is_released_name(std::string_view text);

/// How many releases each side stage of a plan may make here, by name. Stages that are only
/// declared were made elsewhere and may make none. What is no list of stages is none: reading the
/// plan itself refuses it (MechanismPlan::from_json).
std::map<std::string, std::int64_t> stage_limits(const nlohmann::ordered_json& plan);

/// What is charged once a line was lost in a crash (see Ledger::open).
struct ChargesAfterTear {
  std::int64_t charged_steps;
  std::map<std::string, std::int64_t> stages;  ///< of all stages that have a limit
};
ChargesAfterTear count_torn_line(const LedgerSummary& state,
                                 const std::map<std::string, std::int64_t>& stage_limits);

/// Reads the bytes of a whole ledger; every defect goes to `problems`.
LedgerSummary read_ledger(const std::filesystem::path& path, std::string_view bytes,
                          const std::string& expected_head);

}  // namespace sfumato
