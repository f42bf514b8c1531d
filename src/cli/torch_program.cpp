#include "cli/torch_program.h"

#include <c10/util/Exception.h>

#include <new>

#include "cli/light/program.h"
#include "sfumato/grad/page_pool.h"

namespace sfumato::cli {

int run_with_torch(int argc, char** argv, std::initializer_list<void (*)(CLI::App&)> subcommands) {
  return exit_status_of([&] {
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
