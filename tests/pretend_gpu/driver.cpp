// The few functions of the driver that LibTorch calls itself, through libcaffe2_nvrtc.so or by
// their names: contexts, and kernels that it compiles as it goes.
#include "pretend_gpu/driver.h"

#include <cuda.h>
#include <dlfcn.h>

#include <cstdint>
#include <memory>
#include <set>
#include <string>

#include "pretend_gpu/launches.h"
#include "pretend_gpu/report.h"
#include "pretend_gpu/settings.h"

namespace pretend_gpu {
namespace {

CUresult refuse(const char* function) {
  not_pretended(function);
  return CUDA_ERROR_NOT_SUPPORTED;
}

CUresult some_other_function() { return refuse("a function of the driver, asked for by name"); }

/// Anything with an address: there is one context.
CUcontext the_context() {
  static int place = 0;
  return reinterpret_cast<CUcontext>(&place);
}

/// Kernels by name; LibTorch never unloads one.
CUfunction function_named(const std::string& name) {
  static auto* const names = new std::set<std::string>;
  const Lock lock;
  return reinterpret_cast<CUfunction>(const_cast<std::string*>(&*names->insert(name).first));
}
const std::string& name_of(CUfunction function) {
  return *reinterpret_cast<const std::string*>(function);
}

CUresult make_map(CUtensorMap* map, const void* tensor) {
  if (map == nullptr || reinterpret_cast<std::uintptr_t>(map) % 64 != 0 ||
      reinterpret_cast<std::uintptr_t>(tensor) % 16 != 0)
    return CUDA_ERROR_INVALID_VALUE;
  *map = {};
  return CUDA_SUCCESS;
}

}  // namespace

void* driver_function(const char* name) {
  // Those below, and no others: the runtime's have the same prefix.
  void* found = std::string(name).starts_with("cuda") ? nullptr : ::dlsym(RTLD_DEFAULT, name);
  return found != nullptr ? found : reinterpret_cast<void*>(&some_other_function);
}

}  // namespace pretend_gpu

using namespace pretend_gpu;

extern "C" {

CUresult cuGetErrorString(CUresult, const char** text) {
  *text = "an error of the pretended driver";
  return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice* device, int) {
  *device = 0;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute name, CUdevice device) {
  // The two enumerations have the same values.
  return static_cast<CUresult>(
      cudaDeviceGetAttribute(value, static_cast<cudaDeviceAttr>(name), device));
}

CUresult cuDevicePrimaryCtxGetState(CUdevice, unsigned* flags, int* active) {
  *flags = 0;
  *active = device_was_used() ? 1 : 0;
  return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice) {
  *context = the_context();
  return CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext* context) {
  *context = device_was_used() ? the_context() : nullptr;
  return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext) { return CUDA_SUCCESS; }

CUresult cuModuleLoadData(CUmodule* module, const void*) {
  *module = reinterpret_cast<CUmodule>(the_context());
  return CUDA_SUCCESS;
}

CUresult cuModuleGetFunction(CUfunction* function, CUmodule, const char* name) {
  *function = function_named(name);
  return CUDA_SUCCESS;
}

CUresult cuModuleUnload(CUmodule) { return CUDA_SUCCESS; }

CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                        unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                        CUstream stream, void**, void**) {
  const std::string& name = name_of(function);
  cudaError_t error = check_grid(dim3(grid_x, grid_y, grid_z), dim3(block_x, block_y, block_z),
                                 shared_bytes, kSharedBytesWithoutAsking, name);
  if (error == cudaSuccess) error = launch_of_library(stream, name.c_str());
  return static_cast<CUresult>(error);
}

CUresult cuFuncGetAttribute(int*, CUfunction_attribute, CUfunction) {
  return refuse("cuFuncGetAttribute");
}
CUresult cuFuncSetAttribute(CUfunction, CUfunction_attribute, int) {
  return refuse("cuFuncSetAttribute");
}
CUresult cuFuncSetCacheConfig(CUfunction, CUfunc_cache) { return CUDA_SUCCESS; }
CUresult cuLaunchCooperativeKernel(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned,
                                   unsigned, unsigned, CUstream, void**) {
  return refuse("cuLaunchCooperativeKernel");
}
CUresult cuLinkCreate_v2(unsigned, CUjit_option*, void**, CUlinkState*) {
  return refuse("cuLinkCreate");
}
CUresult cuLinkAddData_v2(CUlinkState, CUjitInputType, void*, size_t, const char*, unsigned,
                          CUjit_option*, void**) {
  return refuse("cuLinkAddData");
}
CUresult cuLinkComplete(CUlinkState, void**, size_t*) { return refuse("cuLinkComplete"); }
CUresult cuModuleLoad(CUmodule*, const char*) { return refuse("cuModuleLoad"); }
CUresult cuModuleLoadDataEx(CUmodule*, const void*, unsigned, CUjit_option*, void**) {
  return refuse("cuModuleLoadDataEx");
}
CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int*, CUfunction, int, size_t) {
  return refuse("cuOccupancyMaxActiveBlocksPerMultiprocessor");
}
CUresult cuPointerGetAttribute(void*, CUpointer_attribute, CUdeviceptr) {
  return refuse("cuPointerGetAttribute");
}
// Maps of tensors that nobody reads: kernels are not executed.
CUresult cuTensorMapEncodeTiled(CUtensorMap* map, CUtensorMapDataType, cuuint32_t, void* tensor,
                                const cuuint64_t*, const cuuint64_t*, const cuuint32_t*,
                                const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle,
                                CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
  return make_map(map, tensor);
}
CUresult cuTensorMapEncodeIm2col(CUtensorMap* map, CUtensorMapDataType, cuuint32_t, void* tensor,
                                 const cuuint64_t*, const cuuint64_t*, const int*, const int*,
                                 cuuint32_t, cuuint32_t, const cuuint32_t*, CUtensorMapInterleave,
                                 CUtensorMapSwizzle, CUtensorMapL2promotion,
                                 CUtensorMapFloatOOBfill) {
  return make_map(map, tensor);
}

}  // extern "C"
