#include "mechanism/told_by_leader.h"

#include <fmt/format.h>
#include <string.h>  // explicit_bzero is not in <cstring>

#include <array>
#include <optional>
#include <span>
#include <string>

#include "sfumato/core/error.h"

namespace sfumato {
namespace {

/// What rank 0 says of a charge.
struct Word {
  std::int64_t failed_with = 0;  ///< ErrorKind; 0: it is on disk
  std::int64_t step = 0, release = 0;
};

Word from_leader(Communicator& ranks, Word word) {
  ranks.broadcast(std::as_writable_bytes(std::span(&word, 1)));
  return word;
}

}  // namespace

void check_noise_keys(Communicator& ranks, const SecureKey& noise_key) {
  const std::int64_t size = ranks.size();
  const std::vector<std::int64_t> ids =
      ranks.gather(static_cast<std::int64_t>(std::stoull(noise_key.id(), nullptr, 16)));
  const std::vector<std::int64_t> insecure = ranks.gather(noise_key.insecure() ? 1 : 0);
  const auto refuse = [&](const std::string& what) {
    ranks.leave();
    throw PrivacyError(what);
  };
  for (std::int64_t r = 1; r < size; ++r) {
    if (insecure[r] != insecure[0])
      refuse(
          fmt::format("{} and {} do not both draw their noise from the operating system: the "
                      "ledger of the first could not say what protects the run",
                      ranks.name_of(0), ranks.name_of(r)));
    for (std::int64_t other = 0; other < r; ++other)
      if (ids[r] == ids[other] && insecure[r] == 0)
        refuse(fmt::format(
            "{} and {} have the same noise key: their operating systems hand out the same random "
            "bytes, as copies of a running machine do; start them anew",
            ranks.name_of(other), ranks.name_of(r)));
  }
}

SamplingKey share_sampling_key(Communicator& ranks, const SecureKey& noise_key) {
  SamplingKey::Bytes bytes{};
  std::optional<SamplingKey> own;
  if (ranks.leads()) {
    own.emplace(SamplingKey::for_session(noise_key));
    bytes = own->bytes();
  }
  ranks.broadcast(std::span<std::byte>(bytes));
  if (!ranks.leads()) return SamplingKey::received(bytes);
  explicit_bzero(bytes.data(), bytes.size());
  return std::move(*own);
}

ChargedStep tell_of_charge(Communicator& ranks, const std::function<ChargedStep()>& charge) {
  std::optional<ChargedStep> charged;
  try {
    charged.emplace(charge());
  } catch (const Error& error) {
    from_leader(ranks, {.failed_with = error.exit_code()});
    ranks.leave();
    throw;
  }
  from_leader(ranks, {.step = charged->optimizer_step(), .release = charged->release_number()});
  return std::move(*charged);
}

ChargedStep hear_of_charge(Communicator& ranks, ToldCharges& charges, std::int64_t step) {
  const Word word = from_leader(ranks, {});
  if (word.failed_with != 0) {
    ranks.leave();
    throw Error(static_cast<ErrorKind>(word.failed_with),
                fmt::format("{} did not charge step {} to the ledger, and says why",
                            ranks.name_of(0), step));
  }
  if (word.step != step)
    throw PrivacyError(
        fmt::format("{} charged step {} where this rank takes step {}: they no "
                    "longer take the same steps; start all of them anew",
                    ranks.name_of(0), word.step, step));
  return charges.told(word.step, word.release);
}

}  // namespace sfumato
