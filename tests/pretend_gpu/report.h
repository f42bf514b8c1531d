#pragma once
#include <cuda_runtime_api.h>

#include <mutex>
#include <string>

namespace pretend_gpu {

/// Held by every call that looks at the device's state; one thread may hold it several times.
class Lock {
 public:
  Lock();

 private:
  std::lock_guard<std::recursive_mutex> guard_;
};

enum class Count {
  kLaunches,  ///< of kernels, recorded ones included; not the replays
  kGraphLaunches,
  kCapturesBegun,
  kCapturesEnded,   ///< in a graph
  kCapturesFailed,  ///< ended without one
  kAllocations,
  kAllocationsRefused,  ///< for want of memory
  kCopiesToDevice,
  kCopiesToHost,
  kCopiesOnDevice,
  kSynchronisations,
  kDeviceSynchronisations,  ///< of those, waits for everything on the device
  kEnd
};
void count(Count what);

/// The sticky error of this thread, as cudaGetLastError returns it. Returns `error`.
cudaError_t set_last_error(cudaError_t error);

/// A call that CUDA does not allow, or whose handles and addresses are not what it needs: counted,
/// and the thread's last error. `what` says who did what; equal ones are counted together.
cudaError_t illegal(cudaError_t error, const std::string& what);

/// Allowed, and yet rarely meant.
void warn(const std::string& what);

/// A function that this device does not pretend; its caller's results would say nothing.
cudaError_t not_pretended(const char* function);

/// Every call that needs the device begins with this one: a process that made it leaves a line in
/// the log. cudaErrorInitializationError where the process was forked from one that had used it.
cudaError_t use_device(const char* function);
bool device_was_used();

/// All that happened so far, the line of the log.
std::string report_line();

}  // namespace pretend_gpu
