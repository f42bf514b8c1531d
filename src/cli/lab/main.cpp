#include <string_view>

#include "cli/subcommands.h"
#include "cli/torch_program.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/dist/rank_identity.h"

namespace sfumato::cli {
namespace {

/// Of several processes that a launcher starts the first does what is not shared out among them.
bool is_for_the_first_alone(int argc, char** argv) {
  using std::literals::operator""sv;
  if (argc > 2 && argv[1] == "bench"sv && argv[2] == "ranks"sv) return false;
  try {
    return identity_of_environment().rank > 0;
  } catch (const UsageError&) {  // an environment that says nothing clear matters to ranks alone
    return false;
  }
}

}  // namespace
}  // namespace sfumato::cli

int main(int argc, char** argv) {
  using namespace sfumato::cli;
  if (is_for_the_first_alone(argc, argv)) {
    sfumato::log_info("this is done by the first process alone");
    return 0;
  }
  return run_with_torch(argc, argv,
                        {add_plan, add_probe, add_inspect, add_doctor, add_bench, add_audit});
}
