#pragma once
// Runs CUDA kernels on the CPU, for tests. The threads of a block are fibers that take turns;
// blocks run one after another. A thread runs until it meets the others (a barrier or a warp
// operation), and who goes on then is decided by the schedule: what a kernel computes must not
// depend on it.
//
// A kernel that CUDA leaves undefined is an error here: a barrier or warp operation that a thread
// misses, a write beside the shared memory, too many resources. The launch then returns a nonzero
// cudaError_t and last_error() says why. Every host thread has an emulator of its own.
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <source_location>
#include <string>
#include <type_traits>

namespace sfumato::emulation {

/// Chooses the order of blocks, and of threads whenever several can go on. 0: in order, every
/// thread as far as it can go. 1: the same from the last to the first. Others: drawn from the seed;
/// of those, 2, 5, ... draw at every switch, 3, 6, ... let some threads always run ahead of others,
/// and 4, 7, ... some warps.
void set_schedule(std::uint64_t seed);

/// Shared memory that a block may ask for: as much as compute capability 9.0 and 10.0 have, until
/// set to less (8.6, 8.9 and 12.0 have 99 KiB).
inline constexpr std::size_t kMostSharedMemory = 227 << 10;
std::size_t most_shared_memory();
void set_most_shared_memory(std::size_t bytes);

/// What the device says of itself: compute capability (80 for 8.0) and multiprocessors. 80 and 4
/// until set.
int compute_capability();
void set_compute_capability(int capability);
int multiprocessors();
void set_multiprocessors(int count);

/// Why the last launch that failed did so, with block, thread and place in the source; empty if
/// none failed since the last call of clear_error().
std::string last_error();
void clear_error();

/// Counts since the start or the last reset.
struct Statistics {
  std::int64_t launches = 0;
  std::int64_t blocks = 0;
  std::int64_t barriers = 0;  // of whole blocks
};
Statistics statistics();
void reset_statistics();

// ---- what device code calls ----

/// The block's dynamic shared memory: as many bytes as the launch asked for, 0xff before each
/// block.
void* shared_memory();

/// __syncthreads().
void block_barrier(std::source_location where = std::source_location::current());

/// cp.async: `bytes` bytes from `from`, then `zero_fill_bytes` zeros; together 4, 8 or 16 bytes,
/// and both places aligned to that. Until the wait for its group the target holds 0xff.
void async_copy(void* to, const void* from, int bytes, int zero_fill_bytes);
/// cp.async.commit_group and cp.async.wait_group, of the calling thread.
void async_commit();
void async_wait(int pending_groups);

/// Place in shared memory as instructions take it. 16-byte aligned where the memory starts, and on
/// purpose no better.
std::uint32_t shared_address(const void* place,
                             std::source_location where = std::source_location::current());

/// bar.sync: the first `threads` threads that come to barrier `id` (1..15) wait for each other.
void named_barrier(int id, int threads,
                   std::source_location where = std::source_location::current());

/// mbarrier.init, .arrive (after .expect_tx of that many bytes) and a wait for the end of the phase
/// with that parity. The 8 bytes hold the barrier's state.
void mbarrier_init(void* barrier, unsigned arrivals,
                   std::source_location where = std::source_location::current());
void mbarrier_arrive(void* barrier, unsigned expected_bytes,
                     std::source_location where = std::source_location::current());
void mbarrier_wait(void* barrier, unsigned parity,
                   std::source_location where = std::source_location::current());

/// fence.proxy.async: what ordinary instructions wrote to shared memory is from here on seen by
/// tensor copies and warpgroup products, which otherwise see what was there before.
void fence_async_proxy();

/// cp.async.bulk.tensor: a box of the tensor of `map` (a CUtensorMap) to shared memory. Until its
/// bytes are counted at `barrier`, as late as anybody waits, the target holds 0xff.
struct TensorCopy {
  void* to;
  const void* map;
  void* barrier;
  int rank;
  std::array<std::int32_t, 5> coordinates;
  bool im2col;
  std::array<std::uint16_t, 3> offsets;
};
void tensor_copy(const TensorCopy& copy,
                 std::source_location where = std::source_location::current());

/// wgmma.mma_async.m64nNk16 of bfloat16, a thread's part: `d` has N / 2 floats, operands are
/// described as the instruction demands. The sums are NaN until the wait for their group, which
/// reads the operands.
struct WarpgroupProduct {
  float* d;
  int columns;
  std::uint64_t a, b;
  bool a_is_m_major, b_is_n_major;
};
void warpgroup_fence();
void warpgroup_product(const WarpgroupProduct& product,
                       std::source_location where = std::source_location::current());
void warpgroup_commit();
void warpgroup_wait(int pending_groups,
                    std::source_location where = std::source_location::current());

/// Ends the launch with an error.
[[noreturn]] void fail(const std::string& why,
                       std::source_location where = std::source_location::current());

inline constexpr std::size_t kMostBytesPerLane = 64;

namespace detail {

/// A warp operation under way: lanes wait here until all of `mask` have come.
struct Meeting {
  unsigned mask = 0;
  unsigned arrived = 0;
  int readers = 0;  // lanes that have not taken the values yet
  std::size_t size = 0;
  std::source_location where;
  alignas(16) unsigned char values[32 * kMostBytesPerLane];
};

/// Returns when all lanes of `mask` have called; lane l's bytes are at values + l * size, and 0xff
/// stands for lanes outside `mask`.
Meeting& meet(unsigned mask, const void* mine, std::size_t size, const std::source_location& where);
void leave(Meeting& meeting);

int current_lane();

}  // namespace detail

/// The lanes of `mask` meet; use(values) sees what each of the 32 brought, and its result is
/// returned.
template <class T, class Use>
auto warp_exchange(unsigned mask, const T& mine, Use use,
                   std::source_location where = std::source_location::current()) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= kMostBytesPerLane);
  detail::Meeting& meeting = detail::meet(mask, &mine, sizeof(T), where);
  std::array<T, 32> values;
  std::memcpy(static_cast<void*>(&values), meeting.values, sizeof values);
  detail::leave(meeting);
  return use(values);
}

/// The lanes of `mask` meet and each gets what all of them brought.
template <class T>
std::array<T, 32> warp_gather(unsigned mask, const T& mine,
                              std::source_location where = std::source_location::current()) {
  return warp_exchange(
      mask, mine, [](const std::array<T, 32>& values) { return values; }, where);
}

/// What one lane of the warp brought: the heart of all shuffles.
template <class T>
T warp_read(unsigned mask, const T& mine, int lane, const std::source_location& where) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= kMostBytesPerLane);
  detail::Meeting& meeting = detail::meet(mask, &mine, sizeof(T), where);
  T value;
  std::memcpy(static_cast<void*>(&value),
              meeting.values + static_cast<std::size_t>(lane) * sizeof(T), sizeof(T));
  detail::leave(meeting);
  return value;
}

// ---- what launches call ----

struct LaunchShape {
  std::array<unsigned, 3> grid;
  std::array<unsigned, 3> block;
  std::size_t shared_bytes;
  std::size_t argument_bytes;
  const void* kernel;
};

/// Calls `thread` as every thread of every block. Returns a cudaError_t.
int launch(const LaunchShape& shape, const std::function<void()>& thread);
/// Allows `kernel` that many bytes of dynamic shared memory. Returns a cudaError_t.
int allow_shared_memory(const void* kernel, int bytes);
/// A function of the driver by its name; null if <cuda.h> of the emulator has none.
void* driver_function(const char* name);
/// cudaGetLastError and cudaPeekAtLastError.
int take_last_status(bool clear);

}  // namespace sfumato::emulation
