#include <c10/util/Exception.h>

#include <new>

#include "cli/light/program.h"
#include "cli/subcommands.h"
#include "sfumato/grad/page_pool.h"

int main(int argc, char** argv) {
  using namespace sfumato::cli;
  return exit_status_of([&] {
    sfumato::install_page_pool();
    const auto app = make_app();
    add_prepare(*app);
    add_train(*app);
    add_sample(*app);
    add_light_subcommands(*app);
    add_probe(*app);
    add_inspect(*app);
    add_doctor(*app);
    add_bench(*app);
    add_audit(*app);
    try {
      return run(*app, argc, argv);
    } catch (const c10::OutOfMemoryError&) {
      throw std::bad_alloc();
    }
  });
}
