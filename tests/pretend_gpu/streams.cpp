// Streams and events. Everything is done at once; a stream's timeline counts what it was given, so
// that the time between two events is the same in every run.
#include <algorithm>
#include <map>
#include <memory>

#include "pretend_gpu/capture.h"
#include "pretend_gpu/report.h"

namespace pretend_gpu {
namespace {

/// The time between two events with nothing in between.
constexpr double kLeastMicroseconds = 1;

/// Objects by their addresses, which are their handles. Never freed: a handle stays known.
template <class T>
class Known {
 public:
  T* add() {
    auto made = std::make_unique<T>();
    T* address = made.get();
    all_[address] = std::move(made);
    return address;
  }
  T* find(const void* handle) const {
    const auto found = all_.find(handle);
    return found == all_.end() || !found->second->alive ? nullptr : found->second.get();
  }

 private:
  std::map<const void*, std::unique_ptr<T>> all_;
};

Known<Stream>& streams() {
  static auto* const once = new Known<Stream>;
  return *once;
}
Known<Event>& events() {
  static auto* const once = new Known<Event>;
  return *once;
}
Stream* legacy_stream() {
  static Stream* const once = [] {
    Stream* stream = streams().add();
    stream->legacy = true;
    return stream;
  }();
  return once;
}

Event* find_event(cudaEvent_t handle, const char* who) {
  Event* event = events().find(handle);
  if (event == nullptr)
    illegal(cudaErrorInvalidResourceHandle,
            std::string(who) + " of an event that does not exist, or no longer");
  return event;
}

/// For what waits for, or asks about, an event.
cudaError_t check_wait_for_event(cudaEvent_t handle, const char* who) {
  if (const cudaError_t error = check_unsafe_call(who)) return error;
  const Lock lock;
  const Event* event = find_event(handle, who);
  if (event == nullptr) return cudaErrorInvalidResourceHandle;
  if (in_open_capture(*event))
    return break_capture(*event->capture, cudaErrorCapturedEvent,
                         std::string(who) + " of an event in a capture");
  return cudaSuccess;
}

void take_over(Before& into, const Before& from) {
  for (const auto& [stream, recorded] : from) into[stream] = std::max(into[stream], recorded);
}

cudaError_t join(Stream& stream, const Event& event) {
  if (stream.legacy)
    return break_capture(*event.capture, cudaErrorStreamCaptureImplicit,
                         "cudaStreamWaitEvent: the legacy stream cannot join a capture");
  stream.capture = event.capture;
  stream.recorded = 0;
  stream.before = event.before;
  event.capture->streams.insert(&stream);
  warn("another stream joins a capture by waiting for an event of it");
  return cudaSuccess;
}

cudaError_t wait(Stream& stream, const Event& event) {
  const bool of_capture = in_open_capture(event);
  if (of_capture && !stream.capture) return join(stream, event);
  if (!of_capture && !stream.capture) {
    stream.microseconds = std::max(stream.microseconds, event.microseconds);
    return cudaSuccess;
  }
  if (!of_capture)
    return break_capture(*stream.capture, cudaErrorStreamCaptureIsolation,
                         "cudaStreamWaitEvent: a stream in capture waits for work outside it");
  if (event.capture != stream.capture) {
    event.capture->valid = false;
    return break_capture(*stream.capture, cudaErrorStreamCaptureMerge,
                         "cudaStreamWaitEvent: two captures would become one");
  }
  take_over(stream.before, event.before);
  return cudaSuccess;
}

}  // namespace

Stream* find_stream(cudaStream_t handle, const std::string& who) {
  const Lock lock;
  if (handle == nullptr || handle == cudaStreamLegacy || handle == cudaStreamPerThread)
    return legacy_stream();
  Stream* stream = streams().find(handle);
  if (stream == nullptr)
    illegal(cudaErrorInvalidResourceHandle, who + " on a stream that does not exist, or no longer");
  return stream;
}

}  // namespace pretend_gpu

// The runtime's functions
// --------------------------------------------------------------------------

using namespace pretend_gpu;

extern "C" {

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* handle, unsigned flags, int priority) {
  const Lock lock;
  if (const cudaError_t error = use_device("cudaStreamCreate")) return error;
  Stream* stream = streams().add();
  stream->blocking = (flags & cudaStreamNonBlocking) == 0;
  stream->priority = priority;
  *handle = reinterpret_cast<cudaStream_t>(stream);
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* handle, unsigned flags) {
  return cudaStreamCreateWithPriority(handle, flags, 0);
}

cudaError_t cudaStreamCreate(cudaStream_t* handle) {
  return cudaStreamCreateWithPriority(handle, cudaStreamDefault, 0);
}

cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  const Lock lock;
  Stream* stream = find_stream(handle, "cudaStreamDestroy");
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (stream->legacy)
    return illegal(cudaErrorInvalidResourceHandle, "cudaStreamDestroy of the legacy stream");
  stream->alive = false;
  return cudaSuccess;
}

cudaError_t cudaStreamGetPriority(cudaStream_t handle, int* priority) {
  const Lock lock;
  const Stream* stream = find_stream(handle, "cudaStreamGetPriority");
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  *priority = stream->priority;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  count(Count::kSynchronisations);
  return check_wait_for_stream(handle, "cudaStreamSynchronize");
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
  return check_wait_for_stream(handle, "cudaStreamQuery");
}

cudaError_t cudaDeviceSynchronize() {
  count(Count::kSynchronisations);
  count(Count::kDeviceSynchronisations);
  return check_device_wide_call("cudaDeviceSynchronize");
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event_handle, unsigned flags) {
  constexpr const char* kName = "cudaStreamWaitEvent";
  const Lock lock;
  Stream* stream = find_stream(handle, kName);
  const Event* event = find_event(event_handle, kName);
  if (stream == nullptr || event == nullptr) return cudaErrorInvalidResourceHandle;
  if (!event->recorded || (flags & cudaEventWaitExternal) != 0) return cudaSuccess;
  return wait(*stream, *event);
}

cudaError_t cudaStreamAddCallback(cudaStream_t handle, cudaStreamCallback_t callback, void* data,
                                  unsigned) {
  if (const cudaError_t error = check_wait_for_stream(handle, "cudaStreamAddCallback"))
    return error;
  callback(handle, cudaSuccess, data);
  return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t handle, cudaHostFn_t function, void* data) {
  if (const cudaError_t error = submit(handle, "cudaLaunchHostFunc", 0)) return error;
  if (!is_captured(handle)) function(data);
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* handle, unsigned flags) {
  const Lock lock;
  if (const cudaError_t error = use_device("cudaEventCreate")) return error;
  Event* event = events().add();
  event->timed = (flags & cudaEventDisableTiming) == 0;
  *handle = reinterpret_cast<cudaEvent_t>(event);
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* handle) { return cudaEventCreateWithFlags(handle, 0); }

cudaError_t cudaEventDestroy(cudaEvent_t handle) {
  const Lock lock;
  Event* event = find_event(handle, "cudaEventDestroy");
  if (event == nullptr) return cudaErrorInvalidResourceHandle;
  event->alive = false;
  event->capture.reset();
  return cudaSuccess;
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t handle, cudaStream_t stream_handle, unsigned) {
  constexpr const char* kName = "cudaEventRecord";
  const Lock lock;
  Event* event = find_event(handle, kName);
  Stream* stream = find_stream(stream_handle, kName);
  if (stream == nullptr || event == nullptr) return cudaErrorInvalidResourceHandle;
  if (stream->capture && !stream->capture->valid)
    return illegal(cudaErrorStreamCaptureInvalidated,
                   "cudaEventRecord in a capture that is invalid");
  event->recorded = true;
  event->microseconds = stream->microseconds;
  event->capture = stream->capture;
  event->before = stream->before;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t stream) {
  return cudaEventRecordWithFlags(handle, stream, 0);
}

cudaError_t cudaEventQuery(cudaEvent_t handle) {
  return check_wait_for_event(handle, "cudaEventQuery");
}

cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
  count(Count::kSynchronisations);
  return check_wait_for_event(handle, "cudaEventSynchronize");
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  constexpr const char* kName = "cudaEventElapsedTime";
  const Lock lock;
  const Event* first = find_event(begin, kName);
  const Event* last = find_event(end, kName);
  if (first == nullptr || last == nullptr) return cudaErrorInvalidResourceHandle;
  for (const Event* event : {first, last})
    if (!event->timed || !event->recorded || event->capture)
      return illegal(cudaErrorInvalidResourceHandle,
                     "cudaEventElapsedTime of an event without a time");
  const double between = last->microseconds - first->microseconds;
  *milliseconds = static_cast<float>(std::max(between, kLeastMicroseconds) * 1e-3);
  return cudaSuccess;
}

}  // extern "C"
