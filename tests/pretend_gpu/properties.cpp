// What the device says about itself.
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "pretend_gpu/cudnn_loader.h"
#include "pretend_gpu/driver.h"
#include "pretend_gpu/report.h"
#include "pretend_gpu/settings.h"

namespace pretend_gpu {
namespace {

// An H200's, in kHz, bits and bytes.
constexpr int kClockRate = 1980000, kMemoryClockRate = 3201000, kMemoryBusWidth = 6144;
constexpr int kSecondLevelCache = 60 << 20;

cudaError_t check_device(int device, const char* who) {
  if (device == 0) return cudaSuccess;
  return illegal(cudaErrorInvalidDevice, std::string(who) + " of device " + std::to_string(device) +
                                             ", which is not there");
}

cudaDeviceProp properties() {
  const Settings& s = settings();
  cudaDeviceProp p = {};
  std::strncpy(p.name, s.name.c_str(), sizeof p.name - 1);
  p.major = s.major;
  p.minor = s.minor;
  p.totalGlobalMem = s.memory_bytes;
  p.multiProcessorCount = s.multiprocessors;
  p.sharedMemPerBlock = kSharedBytesWithoutAsking;
  p.sharedMemPerBlockOptin = s.shared_bytes_per_block;
  p.sharedMemPerMultiprocessor = s.shared_bytes_per_multiprocessor;
  p.reservedSharedMemPerBlock = kReservedSharedBytes;
  p.regsPerBlock = p.regsPerMultiprocessor = kRegistersPerMultiprocessor;
  p.warpSize = 32;
  p.maxThreadsPerBlock = kThreadsPerBlock;
  p.maxThreadsPerMultiProcessor = s.threads_per_multiprocessor;
  p.maxBlocksPerMultiProcessor = s.blocks_per_multiprocessor;
  p.maxThreadsDim[0] = p.maxThreadsDim[1] = kThreadsPerBlock;
  p.maxThreadsDim[2] = 64;
  p.maxGridSize[0] = 2147483647;
  p.maxGridSize[1] = p.maxGridSize[2] = 65535;
  p.l2CacheSize = kSecondLevelCache;
  p.totalConstMem = 64 << 10;
  p.memPitch = 2147483647;
  p.textureAlignment = 512;
  p.texturePitchAlignment = 32;
  p.memoryBusWidth = kMemoryBusWidth;
  p.concurrentKernels = p.unifiedAddressing = p.canMapHostMemory = p.cooperativeLaunch = 1;
  p.streamPrioritiesSupported = p.managedMemory = p.hostRegisterSupported = 1;
  p.globalL1CacheSupported = p.localL1CacheSupported = p.computePreemptionSupported = 1;
  p.asyncEngineCount = 3;
  return p;
}

int attribute(cudaDeviceAttr name) {
  const cudaDeviceProp p = properties();
  switch (name) {
    case cudaDevAttrMaxThreadsPerBlock: return p.maxThreadsPerBlock;
    case cudaDevAttrMaxBlockDimX: return p.maxThreadsDim[0];
    case cudaDevAttrMaxBlockDimY: return p.maxThreadsDim[1];
    case cudaDevAttrMaxBlockDimZ: return p.maxThreadsDim[2];
    case cudaDevAttrMaxGridDimX: return p.maxGridSize[0];
    case cudaDevAttrMaxGridDimY: return p.maxGridSize[1];
    case cudaDevAttrMaxGridDimZ: return p.maxGridSize[2];
    case cudaDevAttrMaxSharedMemoryPerBlock: return static_cast<int>(p.sharedMemPerBlock);
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: return static_cast<int>(p.sharedMemPerBlockOptin);
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      return static_cast<int>(p.sharedMemPerMultiprocessor);
    case cudaDevAttrReservedSharedMemoryPerBlock:
      return static_cast<int>(p.reservedSharedMemPerBlock);
    case cudaDevAttrMaxRegistersPerBlock: return p.regsPerBlock;
    case cudaDevAttrMaxRegistersPerMultiprocessor: return p.regsPerMultiprocessor;
    case cudaDevAttrWarpSize: return p.warpSize;
    case cudaDevAttrMultiProcessorCount: return p.multiProcessorCount;
    case cudaDevAttrMaxThreadsPerMultiProcessor: return p.maxThreadsPerMultiProcessor;
    case cudaDevAttrMaxBlocksPerMultiprocessor: return p.maxBlocksPerMultiProcessor;
    case cudaDevAttrComputeCapabilityMajor: return p.major;
    case cudaDevAttrComputeCapabilityMinor: return p.minor;
    case cudaDevAttrClockRate: return kClockRate;
    case cudaDevAttrMemoryClockRate: return kMemoryClockRate;
    case cudaDevAttrGlobalMemoryBusWidth: return kMemoryBusWidth;
    case cudaDevAttrL2CacheSize: return p.l2CacheSize;
    case cudaDevAttrTotalConstantMemory: return static_cast<int>(p.totalConstMem);
    case cudaDevAttrTextureAlignment: return static_cast<int>(p.textureAlignment);
    case cudaDevAttrConcurrentKernels:
    case cudaDevAttrUnifiedAddressing:
    case cudaDevAttrCanMapHostMemory:
    case cudaDevAttrCooperativeLaunch:
    case cudaDevAttrStreamPrioritiesSupported: return 1;
    default: return 0;
  }
}

}  // namespace
}  // namespace pretend_gpu

using namespace pretend_gpu;

extern "C" {

cudaError_t cudaGetDeviceCount(int* devices) {
  // The first that a program asks; LibTorch has registered its own convolutions by then.
  load_cudnn();
  *devices = 1;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  if (const cudaError_t error = use_device("cudaSetDevice")) return error;
  return check_device(device, "cudaSetDevice");
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* all, int device) {
  if (const cudaError_t error = use_device("cudaGetDeviceProperties")) return error;
  if (const cudaError_t error = check_device(device, "cudaGetDeviceProperties")) return error;
  *all = properties();
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr name, int device) {
  if (const cudaError_t error = use_device("cudaDeviceGetAttribute")) return error;
  if (const cudaError_t error = check_device(device, "cudaDeviceGetAttribute")) return error;
  *value = attribute(name);
  return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char* text, int length, int device) {
  std::snprintf(text, static_cast<size_t>(std::max(length, 0)), "0000:00:00.0");
  return check_device(device, "cudaDeviceGetPCIBusId");
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = kVersion;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = kVersion;
  return cudaSuccess;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned,
                                             unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  *function = driver_function(symbol);
  if (result != nullptr) *result = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}

// One device has no peers, and no other process to share with.
cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) {
  *can = 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceEnablePeerAccess(int, unsigned) {
  return not_pretended("cudaDeviceEnablePeerAccess");
}
cudaError_t cudaIpcGetEventHandle(cudaIpcEventHandle_t*, cudaEvent_t) {
  return not_pretended("cudaIpcGetEventHandle");
}
cudaError_t cudaIpcOpenEventHandle(cudaEvent_t*, cudaIpcEventHandle_t) {
  return not_pretended("cudaIpcOpenEventHandle");
}
cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t*, void*) {
  return not_pretended("cudaIpcGetMemHandle");
}
cudaError_t cudaIpcOpenMemHandle(void**, cudaIpcMemHandle_t, unsigned) {
  return not_pretended("cudaIpcOpenMemHandle");
}
cudaError_t cudaIpcCloseMemHandle(void*) { return not_pretended("cudaIpcCloseMemHandle"); }

cudaError_t cudaProfilerStart() { return cudaSuccess; }
cudaError_t cudaProfilerStop() { return cudaSuccess; }

}  // extern "C"
