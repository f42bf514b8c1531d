#include "cli/torch_program.h"

#include <c10/util/Exception.h>

#include <fmt/format.h>

#include <cstdlib>
#include <new>

#include "cli/light/program.h"
#include "sfumato/core/error.h"
#include "sfumato/grad/page_pool.h"

namespace sfumato::cli {
namespace {

/// A part of another commit would audit, or train, another mechanism than people think. Two states
/// of a checkout with changes of its own have the same name.
void check_build() {
  const char* asked = std::getenv(kBuildVariable);
  if (asked == nullptr || asked == build_name()) return;
  throw DeviceError(
      fmt::format("the programs beside each other are of different builds: sfumato is {}, and what "
                  "does this is {}; build all with scripts/build",
                  asked, build_name()));
}

}  // namespace

int run_with_torch(int argc, char** argv, std::initializer_list<void (*)(CLI::App&)> subcommands) {
  return exit_status_of([&] {
    check_build();
    install_page_pool();
    const auto app = make_app();
    for (const auto& add : subcommands) add(*app);
    try {
      return run(*app, argc, argv);
    } catch (const c10::OutOfMemoryError&) {
      throw std::bad_alloc();
    }
  });
}

}  // namespace sfumato::cli
