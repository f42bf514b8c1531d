#pragma once
#include <sys/wait.h>
#include <unistd.h>

#include "sfumato/core/error.h"

namespace sfumato::test {

/// True if `work` throws PrivacyError in a forked child.
template <class Work>
bool child_is_refused(Work work) {
  const pid_t child = ::fork();
  if (child == 0) {
    int code = 1;
    try {
      work();
    } catch (const PrivacyError&) {
      code = 0;
    } catch (...) {
      code = 2;
    }
    ::_exit(code);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace sfumato::test
