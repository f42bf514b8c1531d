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
/// cudaGetLastError and cudaPeekAtLastError.
int take_last_status(bool clear);

}  // namespace sfumato::emulation
