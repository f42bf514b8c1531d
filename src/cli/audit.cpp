#include "cli/audit_subcommands.h"
#include "cli/subcommands.h"

namespace sfumato::cli {

void add_audit(CLI::App& app) {
  CLI::App* audit =
      app.add_subcommand("audit", "attacks on the mechanism, on trained networks and on a corpus");
  audit->require_subcommand(1);
  add_audit_conformance(*audit);
  add_audit_canaries(*audit);
  add_audit_membership(*audit);
  add_audit_replication(*audit);
}

}  // namespace sfumato::cli
