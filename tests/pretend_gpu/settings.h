#pragma once
#include <cstddef>
#include <string>

namespace pretend_gpu {

/// What the device is, from the environment; read once.
struct Settings {
  size_t memory_bytes = 0;            ///< PRETEND_GPU_BYTES
  int major = 0, minor = 0;           ///< PRETEND_GPU_CAPABILITY
  std::string name;                   ///< always contains "(pretended)"
  size_t shared_bytes_per_block = 0;  ///< with asking for it: PRETEND_GPU_SHARED_BYTES
  size_t shared_bytes_per_multiprocessor = 0;
  int multiprocessors = 0;
  int threads_per_multiprocessor = 0;
  int blocks_per_multiprocessor = 0;
  bool break_captures = false;  ///< PRETEND_GPU_BREAK_CAPTURES: their first work makes them invalid
  bool break_graphs = false;    ///< PRETEND_GPU_BREAK_GRAPHS: no memory to make one executable
  std::string log;              ///< PRETEND_GPU_LOG; empty: none
  bool truths = false;          ///< PRETEND_GPU_TRUTHS: a single byte that leaves the device is 1
  bool verbose = false;         ///< PRETEND_GPU_VERBOSE: what is illegal goes to stderr, too
};

/// Ends the process with status 2 and a message where a variable makes no sense.
const Settings& settings();

inline constexpr size_t kSharedBytesWithoutAsking = 48 << 10;
/// Of each block's shared memory, for the system.
inline constexpr size_t kReservedSharedBytes = 1 << 10;
inline constexpr int kThreadsPerBlock = 1024;
inline constexpr int kRegistersPerMultiprocessor = 65536;
inline constexpr int kVersion = 13000;  ///< of driver and runtime

}  // namespace pretend_gpu
