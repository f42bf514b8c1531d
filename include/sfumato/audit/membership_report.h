#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "sfumato/audit/claimed_bound.h"
#include "sfumato/audit/membership.h"

namespace sfumato {

/// Everything that a membership attack on one model found.
struct MembershipAudit {
  std::string model;  ///< name
  std::vector<ScoreColumn> columns;
  ScoredRecords members, non_members;
  bool held_out = false;  ///< the non-members are what prepare held out from the members' set
  std::vector<AttackResult> results;
  std::optional<ClaimedBound> claim;  ///< empty: nothing is claimed
  std::string no_claim;               ///< why not, where it is empty
  std::vector<std::string> warnings;
};

enum class Verdict {
  kNoClaim,     ///< there is nothing to contradict
  kConsistent,  ///< no attack found more than the claim permits; that proves nothing
  kContradicts
};
std::string to_string(Verdict verdict);

/// Whether a point of an attack contradicts the claim: the lower end of its true positive rate
/// exceeds what the claim permits at the upper end of its false positive rate. All 2 x `points`
/// ends hold together with confidence 95 % (Clopper-Pearson, Bonferroni), where `points` is the
/// number of points that are looked at in all.
bool contradicts(const OperatingPoint& point, const ClaimedBound& claim, int64_t points);
Verdict verdict_of(const MembershipAudit& audit);

nlohmann::ordered_json to_json(const MembershipAudit& audit);
/// A few lines for the terminal.
std::string membership_text(const MembershipAudit& audit);
/// A self-contained page with ROC pictures.
std::string membership_html(const MembershipAudit& audit);
/// set,record,half and every score; one line for each record.
std::string membership_csv(const MembershipAudit& audit);

}  // namespace sfumato
