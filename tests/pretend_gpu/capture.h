#pragma once
#include <cuda_runtime_api.h>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>

namespace pretend_gpu {

struct Stream;

/// How much of every stream's recorded work comes before a point in a capture.
using Before = std::map<const Stream*, int64_t>;

/// A sequence of work that is recorded in place of being done, from cudaStreamBeginCapture to
/// cudaStreamEndCapture.
struct Capture {
  unsigned long long id = 0;
  Stream* origin = nullptr;
  std::thread::id thread;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::set<Stream*> streams;  ///< the origin, and those that joined by waiting for its events
  size_t nodes = 0;
  double microseconds = 0;
  bool valid = true;
};

/// Alive as long as someone knows the handle: a destroyed stream or event is told from others.
struct Stream {
  bool alive = true;
  bool blocking = true;  ///< waits for the legacy stream, which waits for it
  bool legacy = false;
  int priority = 0;
  double microseconds = 0;  ///< where its timeline has got to
  std::shared_ptr<Capture> capture;
  int64_t recorded = 0;  ///< its work in `capture`
  Before before;         ///< what its next work in `capture` comes after
};

struct Event {
  bool alive = true;
  bool timed = true;
  bool recorded = false;
  double microseconds = 0;
  std::shared_ptr<Capture> capture;  ///< the one that it was last recorded in; null: none
  Before before;
};

/// Null, and an illegal call, where `handle` is no stream or one that was destroyed.
Stream* find_stream(cudaStream_t handle, const std::string& who);

/// Puts work on a stream: recorded where the stream is in a capture, else `microseconds` long on
/// its timeline. `who` is what the report says.
cudaError_t submit(cudaStream_t stream, const std::string& who, double microseconds);
bool is_captured(cudaStream_t stream);

/// For calls that CUDA's documentation names potentially unsafe: illegal while this thread records
/// work, or another does so in global mode, unless this thread's mode is relaxed.
cudaError_t check_unsafe_call(const char* who);
/// For what waits for, or asks about, all work of the device: never while anything is recorded.
cudaError_t check_device_wide_call(const char* who);
/// For what waits for, or asks about, the work of one stream.
cudaError_t check_wait_for_stream(cudaStream_t stream, const char* who);
/// Is the event part of a capture that goes on?
bool in_open_capture(const Event& event);
/// The capture cannot be ended in a graph any more.
cudaError_t break_capture(Capture& capture, cudaError_t error, const std::string& what);

size_t open_captures();

}  // namespace pretend_gpu
