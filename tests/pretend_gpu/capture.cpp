// Stream capture, as the programming guide and the reference of cudaStreamBeginCapture,
// cudaStreamEndCapture and cudaThreadExchangeStreamCaptureMode describe it.
#include "pretend_gpu/capture.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "pretend_gpu/graphs.h"
#include "pretend_gpu/report.h"
#include "pretend_gpu/settings.h"

namespace pretend_gpu {
namespace {

/// Those that were begun and not ended.
std::vector<std::shared_ptr<Capture>>& open() {
  static auto* const once = new std::vector<std::shared_ptr<Capture>>;
  return *once;
}

thread_local cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;

/// Does `capture` forbid this thread unsafe calls?
bool forbids(const Capture& capture) {
  if (thread_mode == cudaStreamCaptureModeRelaxed) return false;
  if (capture.thread == std::this_thread::get_id())
    return capture.mode != cudaStreamCaptureModeRelaxed;
  return capture.mode == cudaStreamCaptureModeGlobal && thread_mode == cudaStreamCaptureModeGlobal;
}

bool holds_blocking_stream(const Capture& capture) {
  return std::any_of(capture.streams.begin(), capture.streams.end(),
                     [](const Stream* stream) { return stream->blocking; });
}

/// The legacy stream orders itself with every blocking one: not with one that is recorded.
cudaError_t check_legacy_stream(const std::string& who) {
  for (const auto& capture : open())
    if (holds_blocking_stream(*capture))
      return break_capture(*capture, cudaErrorStreamCaptureImplicit,
                           who + " on the legacy stream, which a stream in capture waits for");
  return cudaSuccess;
}

/// Was all work of the streams that joined waited for by the origin?
bool is_joined(const Capture& capture) {
  return std::all_of(capture.streams.begin(), capture.streams.end(), [&](const Stream* stream) {
    if (stream == capture.origin) return true;
    const auto seen = capture.origin->before.find(stream);
    return stream->recorded == 0 ||
           (seen != capture.origin->before.end() && seen->second >= stream->recorded);
  });
}

void close(const std::shared_ptr<Capture>& capture) {
  for (Stream* stream : capture->streams) {
    stream->capture.reset();
    stream->recorded = 0;
    stream->before.clear();
  }
  std::erase(open(), capture);
}

cudaStreamCaptureStatus status_of(const Stream& stream) {
  if (!stream.capture) return cudaStreamCaptureStatusNone;
  return stream.capture->valid ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusInvalidated;
}

cudaError_t failed_end(cudaError_t error, const char* what) {
  count(Count::kCapturesFailed);
  return illegal(error, std::string("cudaStreamEndCapture ") + what);
}

}  // namespace

cudaError_t break_capture(Capture& capture, cudaError_t error, const std::string& what) {
  capture.valid = false;
  return illegal(error, what);
}

cudaError_t submit(cudaStream_t handle, const std::string& who, double microseconds) {
  const Lock lock;
  if (const cudaError_t error = use_device(who.c_str())) return error;
  Stream* stream = find_stream(handle, who);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (stream->capture) {
    Capture& capture = *stream->capture;
    if (!capture.valid)
      return illegal(cudaErrorStreamCaptureInvalidated, who + " in a capture that is invalid");
    if (settings().break_captures)
      return break_capture(capture, cudaErrorStreamCaptureUnsupported,
                           "PRETEND_GPU_BREAK_CAPTURES: the first work of a capture");
    ++capture.nodes;
    capture.microseconds += microseconds;
    stream->before[stream] = ++stream->recorded;
    return cudaSuccess;
  }
  if (stream->legacy) {
    if (const cudaError_t error = check_legacy_stream(who)) return error;
    if (!open().empty()) warn(who + " on the legacy stream while another stream is in capture");
  }
  stream->microseconds += microseconds;
  return cudaSuccess;
}

bool is_captured(cudaStream_t handle) {
  const Lock lock;
  const Stream* stream = find_stream(handle, "");
  return stream != nullptr && stream->capture;
}

cudaError_t check_unsafe_call(const char* who) {
  const Lock lock;
  if (const cudaError_t error = use_device(who)) return error;
  cudaError_t error = cudaSuccess;
  for (const auto& capture : open())
    if (forbids(*capture))
      error = break_capture(*capture, cudaErrorStreamCaptureUnsupported,
                            std::string(who) + " while a stream is in capture");
  return error;
}

cudaError_t check_device_wide_call(const char* who) {
  const Lock lock;
  if (const cudaError_t error = use_device(who)) return error;
  cudaError_t error = cudaSuccess;
  for (const auto& capture : open())
    error = break_capture(*capture, cudaErrorStreamCaptureUnsupported,
                          std::string(who) + " while a stream of the device is in capture");
  return error;
}

cudaError_t check_wait_for_stream(cudaStream_t handle, const char* who) {
  const Lock lock;
  if (const cudaError_t error = use_device(who)) return error;
  Stream* stream = find_stream(handle, who);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (stream->capture)
    return break_capture(*stream->capture, cudaErrorStreamCaptureUnsupported,
                         std::string(who) + " of a stream in capture");
  return stream->legacy ? check_legacy_stream(who) : cudaSuccess;
}

bool in_open_capture(const Event& event) {
  return event.capture && std::find(open().begin(), open().end(), event.capture) != open().end();
}

size_t open_captures() {
  const Lock lock;
  return open().size();
}

}  // namespace pretend_gpu

// The runtime's functions
// --------------------------------------------------------------------------

using namespace pretend_gpu;

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  constexpr const char* kName = "cudaStreamBeginCapture";
  const Lock lock;
  if (const cudaError_t error = use_device(kName)) return error;
  Stream* stream = find_stream(handle, kName);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (stream->legacy)
    return illegal(cudaErrorStreamCaptureUnsupported,
                   "cudaStreamBeginCapture of the legacy stream");
  if (stream->capture)
    return illegal(cudaErrorIllegalState, "cudaStreamBeginCapture of a stream in capture");
  static unsigned long long last_id = 0;
  auto capture = std::make_shared<Capture>();
  capture->id = ++last_id;
  capture->origin = stream;
  capture->thread = std::this_thread::get_id();
  capture->mode = mode;
  capture->streams = {stream};
  stream->capture = capture;
  open().push_back(std::move(capture));
  count(Count::kCapturesBegun);
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  constexpr const char* kName = "cudaStreamEndCapture";
  const Lock lock;
  *graph = nullptr;
  Stream* stream = find_stream(handle, kName);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  const std::shared_ptr<Capture> capture = stream->capture;
  if (!capture) return illegal(cudaErrorIllegalState, "cudaStreamEndCapture without a capture");
  if (capture->origin != stream)
    return break_capture(*capture, cudaErrorStreamCaptureUnmatched,
                         "cudaStreamEndCapture of a stream that only joined the capture");
  if (capture->mode != cudaStreamCaptureModeRelaxed &&
      capture->thread != std::this_thread::get_id())
    return illegal(cudaErrorStreamCaptureWrongThread, "cudaStreamEndCapture by another thread");
  const bool joined = is_joined(*capture);
  close(capture);
  if (!capture->valid)
    return failed_end(cudaErrorStreamCaptureInvalidated, "of a capture that is invalid");
  if (!joined)
    return failed_end(cudaErrorStreamCaptureUnjoined,
                      "where work of another stream was not waited for");
  count(Count::kCapturesEnded);
  *graph = add_graph({capture->nodes, capture->microseconds});
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  const Lock lock;
  const Stream* stream = find_stream(handle, "cudaStreamIsCapturing");
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  *status = status_of(*stream);
  return stream->legacy ? check_legacy_stream("cudaStreamIsCapturing") : cudaSuccess;
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t handle, cudaStreamCaptureStatus* status,
                                     unsigned long long* id, cudaGraph_t* graph,
                                     const cudaGraphNode_t** dependencies,
                                     const cudaGraphEdgeData** edges, size_t* count_out) {
  if (const cudaError_t error = cudaStreamIsCapturing(handle, status)) return error;
  const Lock lock;
  const Stream* stream = find_stream(handle, "cudaStreamGetCaptureInfo");
  if (id != nullptr && stream->capture) *id = stream->capture->id;
  if (graph != nullptr) *graph = nullptr;
  if (dependencies != nullptr) *dependencies = nullptr;
  if (edges != nullptr) *edges = nullptr;
  if (count_out != nullptr) *count_out = 0;
  return cudaSuccess;
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(*mode, thread_mode);
  return cudaSuccess;
}

}  // extern "C"
