#include "sfumato/dist/communicator.h"

#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "dist/tensor_checks.h"
#include "sfumato/core/error.h"
#include "sfumato/core/sha256.h"

namespace sfumato {
namespace {

class SingleProcess final : public Communicator {
 public:
  int64_t rank() const override { return 0; }
  int64_t size() const override { return 1; }
  void all_reduce_sum(const std::vector<at::Tensor>& tensors) override { check_summable(tensors); }
  void reduce_slices(const std::vector<at::Tensor>& flat) override { check_sliceable(flat); }
  void broadcast(const std::vector<at::Tensor>& tensors, int64_t) override {
    check_sendable(tensors);
  }
  void broadcast(std::span<std::byte>) override {}
  void barrier() override {}
};

/// The ranks that differ, of whom at most eight by name.
std::string listed(const Communicator& ranks, const std::vector<int64_t>& differing) {
  constexpr std::size_t kMost = 8;
  std::vector<std::string> names;
  for (std::size_t i = 0; i < std::min(differing.size(), kMost); ++i)
    names.push_back(ranks.name_of(differing[i]));
  const std::string more =
      differing.size() > kMost ? fmt::format(" and {} more", differing.size() - kMost) : "";
  return fmt::format("{}{}", fmt::join(names, ", "), more);
}

}  // namespace

Slice slice_of(int64_t count, int64_t rank, int64_t size) {
  return {count * rank / size, count * (rank + 1) / size};
}

std::string Communicator::name_of(int64_t rank) const { return fmt::format("rank {}", rank); }

std::string Communicator::from_leader(const std::string& text) {
  if (alone()) return text;
  const int64_t length = from_leader(static_cast<int64_t>(text.size()));
  std::string result = text;
  result.resize(static_cast<std::size_t>(length));
  broadcast(std::as_writable_bytes(std::span(result)));
  return result;
}

int64_t Communicator::from_leader(int64_t number) {
  broadcast(std::as_writable_bytes(std::span(&number, 1)));
  return number;
}

std::vector<int64_t> Communicator::gather(int64_t number) {
  const at::Tensor all = at::zeros({size()}, at::kLong);  // each rank fills its own place
  int64_t* const numbers = all.mutable_data_ptr<int64_t>();
  numbers[rank()] = number;
  all_reduce_sum({all});
  return {numbers, numbers + size()};
}

bool Communicator::any(bool flag) {
  if (alone()) return flag;
  const at::Tensor count = at::zeros({1}, at::kLong);  // one number: every step asks
  count.fill_(flag ? 1 : 0);
  all_reduce_sum({count});
  return count.item<int64_t>() > 0;
}

void Communicator::require_same(const std::string& name, const std::string& value,
                                const std::string& remedy) {
  if (alone()) return;
  const std::string digest = sha256_hex(value);
  const std::vector<int64_t> differs = gather(digest != from_leader(digest) ? 1 : 0);
  std::vector<int64_t> differing;
  for (int64_t other = 0; other < size(); ++other)
    if (differs[other] != 0) differing.push_back(other);
  if (differing.empty()) return;
  leave();
  throw UsageError(fmt::format("{} of {} is not that of {}; {}", name, listed(*this, differing),
                               name_of(0), remedy));
}

std::shared_ptr<Communicator> single_process() { return std::make_shared<SingleProcess>(); }

}  // namespace sfumato
