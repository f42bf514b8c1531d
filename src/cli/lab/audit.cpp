#include "cli/lab/audit_subcommands.h"
#include "cli/light/program.h"
#include "cli/subcommands.h"

namespace sfumato::cli {

void add_audit(CLI::App& app) {
  CLI::App* audit = add_subcommand(app, "audit");
  audit->require_subcommand(1);
  add_audit_conformance(*audit);
  add_audit_canaries(*audit);
  add_audit_membership(*audit);
  add_audit_replication(*audit);
}

}  // namespace sfumato::cli
