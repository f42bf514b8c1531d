#include "sfumato/privacy/poisson_sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "sfumato/core/error.h"

namespace sfumato {

PoissonSampler::PoissonSampler(const SecureKey& key, double sample_rate)
    : PoissonSampler(key, sample_rate, StreamDomain::kPoisson, 0) {}

PoissonSampler PoissonSampler::of_stage(const SecureKey& key, double sample_rate,
                                        std::int64_t place) {
  make_nonce(StreamDomain::kStagePoisson, 0, place);  // refuses what no nonce can hold
  return {key, sample_rate, StreamDomain::kStagePoisson, place};
}

PoissonSampler::PoissonSampler(const SecureKey& key, double sample_rate, StreamDomain domain,
                               std::int64_t place)
    : key_(key), sample_rate_(sample_rate), domain_(domain), place_(place) {
  if (!(sample_rate >= std::ldexp(1.0, -64) && sample_rate <= 1.0))
    throw UsageError(fmt::format(
        "sample rate {} is outside (0, 1]; it is the expected batch divided by the number of "
        "records",
        sample_rate));
}

std::vector<std::int64_t> PoissonSampler::draw(std::int64_t step, std::int64_t records) const {
  if (records < 0 || records > kMaxWords64PerStream)
    throw UsageError(fmt::format("cannot sample from {} records", records));
  ChaChaStream stream(key_, domain_, step, place_);
  std::vector<std::int64_t> batch;
  if (sample_rate_ == 1.0) {
    batch.resize(static_cast<std::size_t>(records));
    std::iota(batch.begin(), batch.end(), std::int64_t{0});
    return batch;
  }
  // Scaling by a power of two is exact, and the result is below 2^64 because the rate is below 1.
  const auto threshold = static_cast<std::uint64_t>(std::ldexp(sample_rate_, 64));
  std::array<std::uint64_t, 1024> words;
  std::array<std::int64_t, 1024> chosen;
  for (std::int64_t begin = 0; begin < records; begin += 1024) {
    const std::int64_t count = std::min<std::int64_t>(1024, records - begin);
    stream.fill(std::span(words).first(static_cast<std::size_t>(count)));
    std::size_t hits = 0;  // no branch on the secret
    for (std::int64_t i = 0; i < count; ++i) {
      chosen[hits] = begin + i;
      hits += words[static_cast<std::size_t>(i)] < threshold ? 1 : 0;
    }
    batch.insert(batch.end(), chosen.begin(), chosen.begin() + static_cast<std::ptrdiff_t>(hits));
  }
  return batch;
}

}  // namespace sfumato
