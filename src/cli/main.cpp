#include "cli/subcommands.h"
#include "cli/torch_program.h"

int main(int argc, char** argv) {
  using namespace sfumato::cli;
  return run_with_torch(argc, argv, {add_init, add_prepare, add_train, add_sample, add_release});
}
