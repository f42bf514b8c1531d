#include "sfumato/dist/join_ranks.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <stdlib.h>  // setenv is not in <cstdlib>

#include <algorithm>
#include <csignal>
#include <random>
#include <sstream>
#include <thread>

#include "dist/c10d.h"
#include "dist/deadline.h"
#include "dist/host.h"
#include "dist/rank_watch.h"
#include "dist/tensor_checks.h"
#include "sfumato/core/error.h"
#include "sfumato/core/log.h"
#include "sfumato/core/stop_signal.h"
#include "sfumato/core/version.h"

namespace sfumato {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr milliseconds kAttempt{5000};
/// Beyond the time to join, where an answer never comes.
constexpr milliseconds kMargin{2000};

milliseconds until(Clock::time_point end) {
  return std::max(std::chrono::duration_cast<milliseconds>(end - Clock::now()), milliseconds(1));
}

void stop_if_asked() {
  if (stop_requested()) throw Interrupted("stopped while waiting for the other processes to come");
}

std::string rank_key(int64_t rank) { return fmt::format("rank/{}", rank); }
std::string sign_key(int64_t rank) { return fmt::format("sign/{}", rank); }
const char* const kSizeKey = "size";
const char* const kUnlikeKey = "unlike";  ///< what the one that found it says

/// Who has come: host, its identity and address, and digits that no other process has.
struct Arrival {
  std::string host, identity, address, nonce;

  std::string text() const { return fmt::format("{}\n{}\n{}\n{}", host, identity, address, nonce); }
  static Arrival of(const std::string& text) {
    Arrival arrival;
    std::istringstream in(text);
    std::getline(in, arrival.host);
    std::getline(in, arrival.identity);
    std::getline(in, arrival.address);
    std::getline(in, arrival.nonce);
    return arrival;
  }
};

std::string name_at(int64_t rank, const std::string& host) {
  return fmt::format("rank {} on {}", rank, host);
}

/// Signs of life as values in the store, over a connection of their own.
class StoreBoard final : public SignBoard {
  // Declared first, for its type to be known.
  template <typename Action>
  static auto plainly(const Action& action) {
    try {
      return action();
    } catch (const std::exception& error) {
      throw std::runtime_error(plain_reason(error));
    }
  }

 public:
  StoreBoard(std::unique_ptr<NameStore> store, int64_t rank, int64_t size)
      : store_(std::move(store)), own_(sign_key(rank)) {
    for (int64_t other = 0; other < size; ++other) keys_.push_back(sign_key(other));
  }
  void post(const std::string& sign) override {
    plainly([&] { store_->set(own_, sign); });
  }
  std::vector<std::string> read() override {
    return plainly([&] { return store_->get(keys_); });
  }

 private:
  const std::unique_ptr<NameStore> store_;
  const std::string own_;
  std::vector<std::string> keys_;
};

class RankGroup final : public Communicator {
 public:
  RankGroup(const RankIdentity& identity, const RankOptions& options)
      : identity_(identity), options_(options) {
    {
      // LibTorch waits for a server that accepts and says nothing, and on a busy machine it may
      // tell late that nobody serves.
      const Deadline deadline(
          options.join + kMargin,
          no_answer("whoever serves it was stopped or is cut off, or nobody serves it"));
      meet();
      start_watch();
    }
    call([&] {
      links_ = link_ranks(*store_, rank(), size(), address_of_this(), interface_of_gloo());
    });
    try_out();
    require_same("the build of sfumato", version() + " " + git_commit(),
                 "start the same program everywhere");
  }
  ~RankGroup() override { watch_.reset(); }

  int64_t rank() const override { return identity_.rank; }
  int64_t size() const override { return identity_.size; }
  int64_t local_rank() const override { return count_of_host(rank()); }
  int64_t local_size() const override { return count_of_host(size()); }
  std::string name_of(int64_t other) const override {
    return name_at(other, arrivals_[other].host);
  }

  void all_reduce_sum(const std::vector<at::Tensor>& tensors) override {
    check_summable(tensors);
    call([&] { links_->all_reduce_sum(tensors); });
  }
  void reduce_slices(const std::vector<at::Tensor>& flat) override {
    check_sliceable(flat);
    call([&] { links_->reduce_slices(flat); });
  }
  void broadcast(const std::vector<at::Tensor>& tensors, int64_t from) override {
    check_sendable(tensors);
    call([&] { links_->broadcast(tensors, from); });
  }
  void broadcast(std::span<std::byte> bytes) override {
    broadcast({at::from_blob(bytes.data(), {static_cast<int64_t>(bytes.size())}, at::kByte)}, 0);
  }
  void barrier() override { all_reduce_sum({at::full({1}, 1, at::kLong)}); }
  void leave() override {
    if (!left_) watch_->leave();
    left_ = true;
  }

 protected:
  void hold_begins() override { watch_->hold_begins(); }
  void hold_ends() override { watch_->hold_ends(); }

 private:
  /// Every call passes here: what it throws for whatever reason is the loss of a rank.
  template <typename Action>
  void call(const Action& action) {
    if (left_) throw std::logic_error("a call to ranks that have left");
    watch_->call_begins();
    try {
      action();
    } catch (const Error&) {  // of this program: a build without NCCL
      watch_->call_ends();
      throw;
    } catch (const std::exception& error) {
      throw LostRank(watch_->blame(plain_reason(error)));
    }
    watch_->call_ends();
  }
  std::string no_answer(const std::string& why) const {
    return fmt::format(
        "no answer from {} for {} s ({}); is {} running, and MASTER_ADDR its machine's name or "
        "address, as seen from {}?",
        store_name(), options_.join.count() / 1000, why,
        identity_.store_is_served ? "torchrun" : "rank 0", host_name());
  }
  void meet();
  void start_watch();
  void try_out();
  std::unique_ptr<NameStore> connect(bool serve, Clock::time_point end) const;
  void agree_on_size();
  void claim_name();
  void wait_for_all(Clock::time_point end);
  std::string store_name() const {
    return fmt::format("the store of names at {}:{}", identity_.host, identity_.port);
  }
  std::string address_of_this() const;
  static std::string interface_of_gloo() {
    const char* const name = std::getenv("GLOO_SOCKET_IFNAME");
    const std::string names = name == nullptr ? "" : name;
    return names.substr(0, names.find(','));
  }
  int64_t count_of_host(int64_t before) const {
    return std::count_if(arrivals_.begin(), arrivals_.begin() + before, [&](const Arrival& each) {
      return each.identity == arrivals_[rank()].identity;
    });
  }

  const RankIdentity identity_;
  const RankOptions options_;
  std::vector<Arrival> arrivals_;
  std::unique_ptr<NameStore> store_;
  std::unique_ptr<RankLinks> links_;
  std::unique_ptr<RankWatch> watch_;
  bool left_ = false;
};

/// In attempts, so that a signal to stop is noticed between them.
std::unique_ptr<NameStore> RankGroup::connect(bool serve, Clock::time_point end) const {
  const StorePlace place{identity_.host, identity_.port,
                         fmt::format("sfumato/{}", identity_.attempt), serve};
  for (bool told = false;; told = true) {
    stop_if_asked();
    try {
      return open_name_store(place, std::min(until(end), kAttempt));
    } catch (const std::exception& error) {
      if (serve)
        throw LostRank(fmt::format(
            "rank 0 cannot serve {}: {}. The port may still be in use by an attempt before, "
            "which ends by itself, or by another run: set MASTER_PORT to a free one",
            store_name(), plain_reason(error)));
      if (Clock::now() >= end) throw LostRank(no_answer(plain_reason(error)));
      if (!told) log_info(fmt::format("waiting for {}", store_name()));
      std::this_thread::sleep_for(std::min(until(end), milliseconds(200)));
    }
  }
}

/// All must count as many processes as the first that came.
void RankGroup::agree_on_size() {
  const std::string own = std::to_string(size()), first = store_->claim(kSizeKey, own);
  if (first == own) return;
  const std::string said = fmt::format(
      "{} counts {} processes, and the first that came counted {}: start all with one "
      "number (WORLD_SIZE)",
      name_at(rank(), host_name()), own, first);
  store_->set(kUnlikeKey, said);
  // Whoever serves the store gives the others time to read that.
  if (rank() == 0 && !identity_.store_is_served) std::this_thread::sleep_for(milliseconds(1000));
  throw UsageError(said);
}

void RankGroup::claim_name() {
  std::random_device random;
  const Arrival own{host_name(), host_identity(), address_towards(identity_.host, identity_.port),
                    fmt::format("{:08x}{:08x}", random(), random())};
  const std::string holder = store_->claim(rank_key(rank()), own.text());
  if (holder != own.text())
    throw LostRank(fmt::format(
        "the name of rank {} is still taken in {} by a process on {}: of an attempt before, which "
        "the others have not missed yet, or of another run with the same MASTER_PORT. Start all "
        "processes again",
        rank(), store_name(), Arrival::of(holder).host));
  store_->set(sign_key(rank()), SignOfLife{}.text());
}

void RankGroup::wait_for_all(Clock::time_point end) {
  std::vector<std::string> keys;
  for (int64_t other = 0; other < size(); ++other) {
    // The sign comes after the name, so that the watch finds one of each.
    while (!store_->has(sign_key(other))) {
      stop_if_asked();
      if (store_->has(kUnlikeKey)) throw UsageError(store_->get({kUnlikeKey}).front());
      if (Clock::now() >= end) {
        std::vector<int64_t> missing;
        for (int64_t each = other; each < size() && missing.size() < 8; ++each)
          if (!store_->has(sign_key(each))) missing.push_back(each);
        throw LostRank(
            fmt::format("of {} processes, rank {} did not come within {} s; see what "
                        "became of it, and start all again",
                        size(), fmt::join(missing, ", "), options_.join.count() / 1000));
      }
      std::this_thread::sleep_for(milliseconds(20));
    }
    keys.push_back(rank_key(other));
  }
  for (const std::string& text : store_->get(keys)) arrivals_.push_back(Arrival::of(text));
}

void RankGroup::meet() {
  const Clock::time_point end = Clock::now() + options_.join;
  store_ = connect(rank() == 0 && !identity_.store_is_served, end);
  try {
    store_->set_timeout(until(end));
    agree_on_size();
    claim_name();
    wait_for_all(end);
    store_->set_timeout(options_.join);
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    throw LostRank(fmt::format("{} was lost before all processes had come: {}", store_name(),
                               plain_reason(error)));
  }
}

void RankGroup::start_watch() {
  std::unique_ptr<NameStore> connection = connect(false, Clock::now() + options_.silence);
  connection->set_timeout(options_.silence);
  std::vector<std::string> names;
  for (int64_t other = 0; other < size(); ++other) names.push_back(name_of(other));
  WatchOptions watch;
  watch.silence = options_.silence;
  watch.stuck = options_.stuck;
  watch.serves_board = rank() == 0 && !identity_.store_is_served;
  watch.board_server = identity_.store_is_served ? -1 : 0;
  watch.board = store_name();
  watch_ = std::make_unique<RankWatch>(
      std::make_unique<StoreBoard>(std::move(connection), rank(), size()), rank(), std::move(names),
      std::move(watch));
}

std::string RankGroup::address_of_this() const {
  std::vector<std::string> addresses;
  for (const Arrival& arrival : arrivals_) addresses.push_back(arrival.address);
  return address_for_all(arrivals_[rank()].address, addresses, identity_.port);
}

/// Known numbers through every kind of call: what LibTorch holds inside is read by headers of ours.
void RankGroup::try_out() {
  constexpr int64_t kNumbers = 1000;
  const int64_t sum = size() * (size() + 1) / 2;
  bool right = true;
  for (const at::ScalarType type : {at::kFloat, at::kDouble, at::kInt, at::kLong}) {
    const at::Tensor numbers = at::arange(kNumbers, type).add_(1).mul_(rank() + 1);
    all_reduce_sum({numbers});
    right = right && numbers.equal(at::arange(kNumbers, type).add_(1).mul_(sum));
    const at::Tensor sliced = at::arange(kNumbers, type).add_(1).mul_(rank() + 1);
    reduce_slices({sliced});
    const Slice own = slice_of(kNumbers, rank(), size());
    right =
        right && sliced.slice(0, own.begin, own.end).equal(numbers.slice(0, own.begin, own.end));
  }
  for (const int64_t from : {int64_t{0}, size() - 1}) {
    const at::Tensor sent = at::arange(kNumbers, at::kDouble).add_(rank());
    broadcast({sent}, from);
    right = right && sent.equal(at::arange(kNumbers, at::kDouble).add_(from));
  }
  if (!right)
    throw DeviceError(
        "known numbers came back wrong from the other processes: LibTorch's Gloo is not that of "
        "version 2.11.0, which this program was made for (scripts/setup), or the network changes "
        "what it carries");
}

}  // namespace

std::shared_ptr<Communicator> join_ranks(const RankIdentity& identity, const RankOptions& options) {
  if (identity.size == 1) return single_process();
  // A connection that a lost rank leaves behind must be an error, no end without a word.
  std::signal(SIGPIPE, SIG_IGN);
  return std::make_shared<RankGroup>(identity, options);
}

std::shared_ptr<Communicator> join_ranks(const RankOptions& options) {
  return join_ranks(identity_of_environment(), options);
}

int64_t threads_of_rank(int64_t setting, int64_t cores, const Communicator& ranks) {
  return setting > 0 ? setting : std::max<int64_t>(1, cores / ranks.local_size());
}

void show_gpu_of_rank(const Communicator& ranks) {
  if (ranks.local_size() == 1) return;
  const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
  std::string own = std::to_string(ranks.local_rank());
  if (visible != nullptr) {
    std::vector<std::string> names;
    std::istringstream in(visible);
    for (std::string name; std::getline(in, name, ',');) names.push_back(name);
    if (names.size() <= 1) return;  // the launcher has chosen
    if (ranks.local_rank() >= static_cast<int64_t>(names.size()))
      throw UsageError(fmt::format(
          "{} processes on {} share {} GPUs (CUDA_VISIBLE_DEVICES={}); start one for each GPU",
          ranks.local_size(), host_name(), names.size(), visible));
    own = names[ranks.local_rank()];
  }
  ::setenv("CUDA_VISIBLE_DEVICES", own.c_str(), /*overwrite=*/1);
}

}  // namespace sfumato
