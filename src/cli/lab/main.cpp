#include "cli/subcommands.h"
#include "cli/torch_program.h"

int main(int argc, char** argv) {
  using namespace sfumato::cli;
  return run_with_torch(
      argc, argv,
      {add_plan, add_probe, add_inspect, add_doctor, add_bench, add_evaluate, add_audit});
}
