// What threads wait for beside each other: barriers of some of the block's threads, mbarriers,
// tensor copies and warpgroup products.
#include <cuda_runtime.h>

#include "emulation/block_emulator.h"

namespace sfumato::emulation {

void Emulator::require_capability(int least, const char* what, const std::source_location& where) {
  require_kernel(what);
  // What is in sm_90a is in no later architecture.
  const bool there = least == 90 ? capability == 90 : capability >= least;
  if (!there)
    fail(std::string(what) + " on compute capability " + std::to_string(capability), where);
}

std::uint32_t Emulator::shared_address(const void* place, std::size_t bytes,
                                       const std::source_location& where) {
  require_kernel("an address in shared memory");
  const auto* const at = static_cast<const unsigned char*>(place);
  const auto* const begin = static_cast<const unsigned char*>(shared_->data());
  if (at < begin || at + bytes > begin + shared_->bytes())
    fail("a place that is not in shared memory", where);
  return AsyncProxy::kWindow + static_cast<std::uint32_t>(at - begin);
}

void Emulator::named_barrier(int id, int threads, const std::source_location& where) {
  require_kernel("a barrier");
  if (id < 1 || id > 15 || threads < static_cast<int>(kWarp) || threads % kWarp != 0 ||
      threads > static_cast<int>(threads_.size()))
    fail("barrier " + std::to_string(id) + " of " + std::to_string(threads) + " threads", where);
  NamedBarrier& barrier = named_barriers_[id];
  if (barrier.arrived > 0 && barrier.threads != threads)
    fail("barrier " + std::to_string(id) + " of " + std::to_string(threads) +
             " threads, while others wait for " + std::to_string(barrier.threads),
         where);
  barrier.threads = threads;
  current_->state = Thread::State::kAtNamedBarrier;
  current_->where = where;
  current_->barrier_id = id;
  if (++barrier.arrived == threads) {
    barrier.arrived = 0;
    for (Thread& thread : threads_)
      if (thread.state == Thread::State::kAtNamedBarrier && thread.barrier_id == id) wake(thread);
  }
  pause();
}

Mbarrier Emulator::mbarrier_at(const void* barrier, const char* what,
                               const std::source_location& where) {
  require_capability(80, what, where);
  if (shared_address(barrier, 8, where) % 8 != 0)
    fail(std::string(what) + " of an mbarrier that is not at a multiple of 8 bytes", where);
  const Mbarrier state = Mbarrier::read(barrier);
  if (!state.valid()) fail(std::string(what) + " of an mbarrier that is not initialised", where);
  return state;
}

void Emulator::mbarrier_init(void* barrier, unsigned arrivals, const std::source_location& where) {
  require_capability(80, "initialisation", where);
  if (shared_address(barrier, 8, where) % 8 != 0 || arrivals < 1 ||
      arrivals > Mbarrier::kMostArrivals)
    fail("an mbarrier of " + std::to_string(arrivals) + " arrivals or at a misaligned place",
         where);
  Mbarrier::started(arrivals).write(barrier);
}

/// Ends the phase where it is complete and wakes who waits for that. Whether it did.
bool Emulator::advance(void* place, Mbarrier barrier) {
  const bool turned = barrier.turn();
  barrier.write(place);
  if (!turned) return false;
  for (Thread& thread : threads_)
    if (thread.state == Thread::State::kAtMbarrier && thread.mbarrier == place &&
        thread.parity != barrier.parity())
      wake(thread);
  return true;
}

/// Who completes a phase may be overtaken by those that it wakes.
void Emulator::mbarrier_arrive(void* barrier, unsigned expected_bytes,
                               const std::source_location& where) {
  Mbarrier state = mbarrier_at(barrier, "an arrival", where);
  const std::string problem = state.expect(expected_bytes);
  if (!problem.empty()) fail(problem, where);
  state.arrive();
  if (!advance(barrier, state)) return;
  wake(*current_);
  pause();
}

void Emulator::mbarrier_wait(void* barrier, unsigned parity, const std::source_location& where) {
  if (mbarrier_at(barrier, "a wait", where).parity() != parity) return;
  current_->state = Thread::State::kAtMbarrier;
  current_->where = where;
  current_->mbarrier = barrier;
  current_->parity = parity;
  pause();
}

void Emulator::fence_async_proxy() {
  require_kernel("fence.proxy.async");
  proxy_.fence(*shared_);
}

void Emulator::tensor_copy(const TensorCopy& copy, const std::source_location& where) {
  require_kernel("a tensor copy");
  if (capability < 90) fail("a tensor copy before compute capability 9.0", where);
  mbarrier_at(copy.barrier, "a tensor copy", where);
  const std::string problem = proxy_.problem(copy, *shared_);
  if (!problem.empty()) fail(problem, where);
  proxy_.start(copy, *shared_);
}

/// Nobody can go on: one of the copies under way arrives. False if there is none.
bool Emulator::land_copy() {
  if (!proxy_.under_way()) return false;
  const AsyncProxy::Landed landed = proxy_.land(*shared_, schedule.youngest_first());
  Mbarrier state = Mbarrier::read(landed.barrier);
  const std::string problem =
      state.valid() ? state.expect(-landed.bytes) : "a tensor copy's mbarrier was overwritten";
  if (!problem.empty()) {
    abandon("block " + std::to_string(blockIdx.x) + ": " + problem);
    return false;
  }
  advance(landed.barrier, state);
  return true;
}

void Emulator::warpgroup_fence() {
  require_kernel("wgmma.fence");
  current_->products.fence();
}

void Emulator::warpgroup_product(const WarpgroupProduct& product,
                                 const std::source_location& where) {
  require_capability(90, "a warpgroup product", where);
  const std::string problem = current_->products.problem(product);
  if (!problem.empty()) fail(problem, where);
  const unsigned group = number_of(*current_) / 128;
  const WarpgroupProducts::Signature mine{product.columns, product.a, product.b,
                                          product.a_is_m_major, product.b_is_n_major};
  auto& all = products_[group];
  const std::size_t at = current_->products.started();
  if (at == all.size()) all.push_back(mine);
  if (!(all[at] == mine)) fail("a warpgroup product in which threads disagree", where);
  current_->products.start(product);
}

void Emulator::warpgroup_commit() {
  require_kernel("wgmma.commit_group");
  current_->products.commit();
}

void Emulator::warpgroup_wait(int pending_groups, const std::source_location& where) {
  require_kernel("wgmma.wait_group");
  if (!current_->products.wait(pending_groups, number_of(*current_), proxy_))
    fail("a warpgroup product of an operand beside the shared memory", where);
  warp_read(0xffffffffu, '\0', 0, where);
}

/// What a block may not leave behind; empty if there is nothing.
std::string Emulator::unfinished() const {
  if (proxy_.under_way()) return "while tensor copies were under way";
  for (const Thread& thread : threads_) {
    const auto all = products_.find(number_of(thread) / 128);
    if (!thread.products.all_done()) return "while warpgroup products were under way";
    if (all != products_.end() && thread.products.started() != all->second.size())
      return "though thread " + std::to_string(number_of(thread)) +
             " left out a product of its warpgroup";
  }
  return "";
}

std::uint32_t shared_address(const void* place, std::source_location where) {
  return emulator().shared_address(place, 0, where);
}
void named_barrier(int id, int threads, std::source_location where) {
  emulator().named_barrier(id, threads, where);
}
void mbarrier_init(void* barrier, unsigned arrivals, std::source_location where) {
  emulator().mbarrier_init(barrier, arrivals, where);
}
void mbarrier_arrive(void* barrier, unsigned expected_bytes, std::source_location where) {
  emulator().mbarrier_arrive(barrier, expected_bytes, where);
}
void mbarrier_wait(void* barrier, unsigned parity, std::source_location where) {
  emulator().mbarrier_wait(barrier, parity, where);
}
void fence_async_proxy() { emulator().fence_async_proxy(); }
void tensor_copy(const TensorCopy& copy, std::source_location where) {
  emulator().tensor_copy(copy, where);
}
void warpgroup_fence() { emulator().warpgroup_fence(); }
void warpgroup_product(const WarpgroupProduct& product, std::source_location where) {
  emulator().warpgroup_product(product, where);
}
void warpgroup_commit() { emulator().warpgroup_commit(); }
void warpgroup_wait(int pending_groups, std::source_location where) {
  emulator().warpgroup_wait(pending_groups, where);
}

}  // namespace sfumato::emulation
