#pragma once
#include <CLI/CLI.hpp>

namespace sfumato::cli {

// One file per attack; each adds itself to `audit` with a callback that does the work. An attack
// that contradicts the claim throws PrivacyError after it has printed its report.
void add_audit_conformance(CLI::App& audit);
void add_audit_canaries(CLI::App& audit);
void add_audit_membership(CLI::App& audit);
void add_audit_replication(CLI::App& audit);

}  // namespace sfumato::cli
