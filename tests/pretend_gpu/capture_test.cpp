// What may be recorded, by whom, and what breaks a recording.
#include <thread>

#include "pretend_gpu/test_calls.h"

namespace pretend_gpu {
namespace {

void begin(const Stream& stream, cudaStreamCaptureMode mode = cudaStreamCaptureModeThreadLocal) {
  EXPECT_ALLOWED(cudaStreamBeginCapture(stream.handle, mode));
}

/// Ends a capture that has to give a graph.
cudaGraph_t end(const Stream& stream) {
  cudaGraph_t graph = nullptr;
  EXPECT_ALLOWED(cudaStreamEndCapture(stream.handle, &graph));
  return graph;
}

/// Ends one that something made invalid.
void end_invalid(const Stream& stream) {
  cudaGraph_t graph = nullptr;
  EXPECT_ILLEGAL(cudaErrorStreamCaptureInvalidated, cudaStreamEndCapture(stream.handle, &graph));
  EXPECT_EQ(graph, nullptr);
}

TEST(PretendCapture, RecordsAGraphThatIsLaunched) {
  const Stream stream;
  const Memory memory(256);
  const Json before = report();
  begin(stream);
  EXPECT_ALLOWED(start(stream.handle, memory.data));
  EXPECT_ALLOWED(cudaMemsetAsync(memory.data, 0, 256, stream.handle));
  cudaGraph_t graph = end(stream);
  size_t nodes = 0;
  EXPECT_ALLOWED(cudaGraphGetNodes(graph, nullptr, &nodes));
  EXPECT_EQ(nodes, 2);
  cudaGraphExec_t executable = nullptr;
  EXPECT_ALLOWED(cudaGraphInstantiate(&executable, graph, 0));
  EXPECT_ALLOWED(cudaGraphDestroy(graph));
  EXPECT_ALLOWED(cudaGraphLaunch(executable, stream.handle));
  EXPECT_ALLOWED(cudaGraphExecDestroy(executable));
  EXPECT_EQ(reported("captures_ended"), before["captures_ended"].get<int64_t>() + 1);
  EXPECT_EQ(reported("graph_launches"), before["graph_launches"].get<int64_t>() + 1);
  EXPECT_ILLEGAL(cudaErrorInvalidValue, cudaGraphLaunch(executable, stream.handle));
  EXPECT_ILLEGAL(cudaErrorInvalidValue, cudaGraphExecDestroy(executable));
  EXPECT_ILLEGAL(cudaErrorInvalidValue, cudaGraphInstantiate(&executable, graph, 0));
}

TEST(PretendCapture, ForbidsUnsafeCallsOfItsThread) {
  const Stream stream;
  begin(stream);
  void* address = nullptr;
  EXPECT_ILLEGAL(cudaErrorStreamCaptureUnsupported, cudaMalloc(&address, 512));
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  EXPECT_ALLOWED(cudaStreamIsCapturing(stream.handle, &status));
  EXPECT_EQ(status, cudaStreamCaptureStatusInvalidated);
  EXPECT_ILLEGAL(cudaErrorStreamCaptureInvalidated, start(stream.handle, nullptr));
  end_invalid(stream);
}

TEST(PretendCapture, AllowsThemWhereTheThreadIsRelaxed) {
  const Stream stream;
  begin(stream);
  auto mode = cudaStreamCaptureModeRelaxed;
  EXPECT_ALLOWED(cudaThreadExchangeStreamCaptureMode(&mode));
  EXPECT_EQ(mode, cudaStreamCaptureModeGlobal);
  { const Memory memory(512); }
  EXPECT_ALLOWED(cudaThreadExchangeStreamCaptureMode(&mode));
  end(stream);
  begin(stream, cudaStreamCaptureModeRelaxed);
  { const Memory memory(512); }
  end(stream);
}

TEST(PretendCapture, OfOneThreadConcernsOthersInGlobalModeAlone) {
  const Stream stream;
  const auto allocate = [] {
    void* address = nullptr;
    const cudaError_t error = cudaMalloc(&address, 512);
    cudaFree(address);
    return error;
  };
  cudaError_t error = cudaSuccess;
  begin(stream, cudaStreamCaptureModeThreadLocal);
  std::thread([&] { error = allocate(); }).join();
  EXPECT_EQ(error, cudaSuccess);
  end(stream);
  begin(stream, cudaStreamCaptureModeGlobal);
  std::thread([&] { error = allocate(); }).join();
  EXPECT_EQ(error, cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess) << "the error is the other thread's";
  end_invalid(stream);
}

TEST(PretendCapture, IsEndedByTheThreadThatBeganIt) {
  const Stream stream;
  begin(stream);
  std::thread([&] {
    cudaGraph_t graph = nullptr;
    EXPECT_ILLEGAL(cudaErrorStreamCaptureWrongThread, cudaStreamEndCapture(stream.handle, &graph));
  }).join();
  EXPECT_EQ(reported("captures_open"), 1);
  end(stream);
  EXPECT_EQ(reported("captures_open"), 0);
}

TEST(PretendCapture, IsBegunAndEndedOnce) {
  const Stream stream;
  cudaGraph_t graph = nullptr;
  EXPECT_ILLEGAL(cudaErrorIllegalState, cudaStreamEndCapture(stream.handle, &graph));
  EXPECT_ILLEGAL(cudaErrorStreamCaptureUnsupported,
                 cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeGlobal));
  begin(stream);
  EXPECT_ILLEGAL(cudaErrorIllegalState,
                 cudaStreamBeginCapture(stream.handle, cudaStreamCaptureModeGlobal));
  end(stream);
}

TEST(PretendCapture, IsNotWaitedFor) {
  const Stream stream;
  const auto breaks = [&](cudaError_t error, auto call) {
    begin(stream);
    EXPECT_ILLEGAL(error, call());
    end_invalid(stream);
  };
  const Event event, outside;
  EXPECT_ALLOWED(cudaEventRecord(outside.handle, stream.handle));
  breaks(cudaErrorStreamCaptureUnsupported, [&] { return cudaStreamSynchronize(stream.handle); });
  breaks(cudaErrorStreamCaptureUnsupported, [&] { return cudaStreamQuery(stream.handle); });
  breaks(cudaErrorStreamCaptureUnsupported, [&] { return cudaDeviceSynchronize(); });
  breaks(cudaErrorStreamCaptureUnsupported, [&] { return cudaEventQuery(outside.handle); });
  auto relaxed = cudaStreamCaptureModeRelaxed;
  EXPECT_ALLOWED(cudaThreadExchangeStreamCaptureMode(&relaxed));
  breaks(cudaErrorCapturedEvent, [&] {
    EXPECT_ALLOWED(cudaEventRecord(event.handle, stream.handle));
    return cudaEventQuery(event.handle);
  });
  begin(stream);
  EXPECT_ALLOWED(cudaEventQuery(outside.handle));
  end(stream);
  EXPECT_ALLOWED(cudaThreadExchangeStreamCaptureMode(&relaxed));
}

TEST(PretendCapture, OfABlockingStreamForbidsTheLegacyStream) {
  const Memory memory(256);
  const Stream blocking(cudaStreamDefault), other;
  begin(blocking);
  EXPECT_ILLEGAL(cudaErrorStreamCaptureImplicit, start(nullptr, memory.data));
  end_invalid(blocking);
  const Event event;
  begin(other);
  EXPECT_ALLOWED(cudaEventRecord(event.handle, other.handle));
  EXPECT_ILLEGAL(cudaErrorStreamCaptureImplicit, cudaStreamWaitEvent(nullptr, event.handle, 0));
  end_invalid(other);
  const size_t warnings = report().at("warnings").size();
  begin(other);
  EXPECT_ALLOWED(start(nullptr, memory.data));
  end(other);
  EXPECT_EQ(report().at("warnings").size(), warnings + 1);
}

TEST(PretendCapture, TakesInStreamsThatWaitForItAndMustWaitForThem) {
  const Memory memory(256);
  const Stream origin, fork;
  const Event forked, joined;
  const auto record = [&](bool join) {
    begin(origin);
    EXPECT_ALLOWED(start(origin.handle, memory.data));
    EXPECT_ALLOWED(cudaEventRecord(forked.handle, origin.handle));
    EXPECT_ALLOWED(cudaStreamWaitEvent(fork.handle, forked.handle, 0));
    EXPECT_ALLOWED(start(fork.handle, memory.data));
    if (!join) return;
    EXPECT_ALLOWED(cudaEventRecord(joined.handle, fork.handle));
    EXPECT_ALLOWED(cudaStreamWaitEvent(origin.handle, joined.handle, 0));
  };
  record(/*join=*/true);
  end(origin);
  cudaGraph_t graph = nullptr;
  record(/*join=*/false);
  EXPECT_ILLEGAL(cudaErrorStreamCaptureUnjoined, cudaStreamEndCapture(origin.handle, &graph));
  record(/*join=*/true);
  EXPECT_ILLEGAL(cudaErrorStreamCaptureUnmatched, cudaStreamEndCapture(fork.handle, &graph));
  end_invalid(origin);
  EXPECT_ALLOWED(start(fork.handle, memory.data));
}

TEST(PretendCapture, IsJoinedByTheLastOfAChainOfStreams) {
  const Memory memory(256);
  const Stream origin, first, second;
  const Event forked, handed_on, joined;
  begin(origin);
  EXPECT_ALLOWED(cudaEventRecord(forked.handle, origin.handle));
  EXPECT_ALLOWED(cudaStreamWaitEvent(first.handle, forked.handle, 0));
  EXPECT_ALLOWED(start(first.handle, memory.data));
  EXPECT_ALLOWED(cudaEventRecord(handed_on.handle, first.handle));
  EXPECT_ALLOWED(cudaStreamWaitEvent(second.handle, handed_on.handle, 0));
  EXPECT_ALLOWED(start(second.handle, memory.data));
  EXPECT_ALLOWED(cudaEventRecord(joined.handle, second.handle));
  EXPECT_ALLOWED(cudaStreamWaitEvent(origin.handle, joined.handle, 0));
  end(origin);
}

TEST(PretendCapture, DoesNotBecomeOneWithAnother) {
  const Stream one, other;
  const Event event;
  begin(one);
  begin(other);
  EXPECT_ALLOWED(cudaEventRecord(event.handle, one.handle));
  EXPECT_ILLEGAL(cudaErrorStreamCaptureMerge, cudaStreamWaitEvent(other.handle, event.handle, 0));
  end_invalid(one);
  end_invalid(other);
}

TEST(PretendCapture, DoesNotWaitForWorkOutside) {
  const Stream stream, other;
  const Event outside, never_recorded;
  EXPECT_ALLOWED(cudaEventRecord(outside.handle, other.handle));
  begin(stream);
  EXPECT_ALLOWED(cudaStreamWaitEvent(stream.handle, never_recorded.handle, 0));
  EXPECT_ILLEGAL(cudaErrorStreamCaptureIsolation,
                 cudaStreamWaitEvent(stream.handle, outside.handle, 0));
  end_invalid(stream);
}

}  // namespace
}  // namespace pretend_gpu
