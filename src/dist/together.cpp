#include "sfumato/dist/together.h"

#include <fmt/format.h>

#include <exception>
#include <string>
#include <vector>

namespace sfumato {

void on_leader(Communicator& ranks, const std::function<void()>& work) {
  if (ranks.alone()) return work();
  std::exception_ptr thrown;
  std::string word;  // "" or exit status and message
  if (ranks.leads()) {
    const RankHold hold(ranks);
    try {
      work();
    } catch (const Error& error) {
      thrown = std::current_exception();
      word = fmt::format("{} {}", error.exit_code(), error.what());
    } catch (const std::exception& error) {
      thrown = std::current_exception();
      word = fmt::format("{} {}", static_cast<int>(ErrorKind::kDevice), error.what());
    }
  }
  word = ranks.from_leader(word);
  if (word.empty()) return;
  if (thrown) std::rethrow_exception(thrown);
  const std::size_t space = word.find(' ');
  throw Error(static_cast<ErrorKind>(std::stoi(word.substr(0, space))),
              fmt::format("{}: {}", ranks.name_of(0), word.substr(space + 1)));
}

void on_leader_or_leave(Communicator& ranks, const std::function<void()>& work) {
  or_part(ranks, [&] { on_leader(ranks, work); });
}

void everywhere(Communicator& ranks, const std::function<void()>& work) {
  if (ranks.alone()) return work();
  std::exception_ptr thrown;
  int64_t status = 0;
  const auto failed_with = [&](ErrorKind kind) {
    thrown = std::current_exception();
    status = static_cast<int64_t>(kind);
  };
  try {
    work();
  } catch (const LostRank&) {
    throw;  // nobody is there to be told
  } catch (const Error& error) {
    failed_with(error.kind());
  } catch (...) {
    failed_with(ErrorKind::kDevice);
  }
  const std::vector<int64_t> statuses = ranks.gather(status);
  if (thrown) std::rethrow_exception(thrown);
  for (int64_t other = 0; other < ranks.size(); ++other)
    if (statuses[other] != 0)
      throw Error(static_cast<ErrorKind>(statuses[other]),
                  fmt::format("{} cannot go on, and says why", ranks.name_of(other)));
}

void or_part(Communicator& ranks, const std::function<void()>& work) {
  try {
    work();
  } catch (const LostRank&) {
    throw;
  } catch (...) {
    ranks.leave();
    throw;
  }
}

}  // namespace sfumato
