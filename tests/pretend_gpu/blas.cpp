// cuBLAS: products that are not computed. Their matrices must lie in the device's allocations.
#include <cublas_v2.h>

#include <cstdlib>
#include <set>
#include <string>

#include "pretend_gpu/capture.h"
#include "pretend_gpu/device_memory.h"
#include "pretend_gpu/launches.h"
#include "pretend_gpu/report.h"

/// What a handle points to: the type is cuBLAS's own and nobody else's to define.
struct cublasContext {
  cudaStream_t stream = nullptr;
  cublasMath_t math = CUBLAS_DEFAULT_MATH;
  cublasPointerMode_t pointers = CUBLAS_POINTER_MODE_HOST;
};

namespace pretend_gpu {
namespace {

std::set<cublasHandle_t>& handles() {
  static auto* const once = new std::set<cublasHandle_t>;
  return *once;
}

bool exists(cublasHandle_t handle, const char* who) {
  const Lock lock;
  if (handles().contains(handle)) return true;
  illegal(cudaErrorInvalidResourceHandle,
          std::string(who) + " with a handle that does not exist, or no longer");
  return false;
}

size_t size_of(cudaDataType type) {
  switch (type) {
    case CUDA_R_16F:
    case CUDA_R_16BF: return 2;
    case CUDA_R_32F:
    case CUDA_R_32I: return 4;
    case CUDA_R_64F:
    case CUDA_C_32F: return 8;
    case CUDA_C_64F: return 16;
    default: return 1;
  }
}

/// A matrix in column-major order, or `batch` of them.
struct Matrix {
  const void* data;
  size_t element;
  int64_t leading, stride = 0;
};

struct Product {
  const char* who;
  cublasHandle_t handle;
  cublasOperation_t transpose_a, transpose_b;
  int64_t m, n, k, batch;
  Matrix a, b, c;
};

bool in_memory(const Matrix& matrix, int64_t rows, int64_t columns, int64_t batch) {
  if (matrix.leading < rows || matrix.leading < 1) return false;
  const int64_t elements = (batch - 1) * matrix.stride + (columns - 1) * matrix.leading + rows;
  return is_allocated(matrix.data, static_cast<size_t>(elements) * matrix.element);
}

bool in_memory(const Matrix& matrix, cublasOperation_t transpose, int64_t rows, int64_t columns,
               int64_t batch) {
  return transpose == CUBLAS_OP_N ? in_memory(matrix, rows, columns, batch)
                                  : in_memory(matrix, columns, rows, batch);
}

cublasStatus_t multiply(const Product& p) {
  if (!exists(p.handle, p.who)) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (p.m < 0 || p.n < 0 || p.k < 0 || p.batch < 0) {
    illegal(cudaErrorInvalidValue, std::string(p.who) + " with a negative size");
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (p.m == 0 || p.n == 0 || p.batch == 0) return CUBLAS_STATUS_SUCCESS;
  const bool has_inputs = p.k == 0 || (in_memory(p.a, p.transpose_a, p.m, p.k, p.batch) &&
                                       in_memory(p.b, p.transpose_b, p.k, p.n, p.batch));
  if (!has_inputs || !in_memory(p.c, p.m, p.n, p.batch)) {
    illegal(cudaErrorIllegalAddress, std::string(p.who) +
                                         ": a matrix is not, or not all, in an "
                                         "allocation of the device");
    return CUBLAS_STATUS_EXECUTION_FAILED;
  }
  const cudaError_t error = launch_of_library(p.handle->stream, p.who);
  return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

/// Products of matrix and vector, of two vectors: their addresses alone are looked at.
cublasStatus_t launch(const char* who, cublasHandle_t handle, const void* a, const void* b) {
  if (!exists(handle, who)) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (!is_allocated(a, 1) || !is_allocated(b, 1)) {
    illegal(cudaErrorIllegalAddress, std::string(who) + " of what is not the device's memory");
    return CUBLAS_STATUS_EXECUTION_FAILED;
  }
  const cudaError_t error = launch_of_library(handle->stream, who);
  return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

template <class T>
cublasStatus_t dot(const char* who, cublasHandle_t handle, int n, const T* x, const T* y,
                   T* result) {
  if (!exists(handle, who)) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (handle->pointers == CUBLAS_POINTER_MODE_HOST) *result = T{};
  return n <= 0 ? CUBLAS_STATUS_SUCCESS : launch(who, handle, x, y);
}

}  // namespace
}  // namespace pretend_gpu

using namespace pretend_gpu;

extern "C" {

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  // It allocates memory.
  if (check_unsafe_call("cublasCreate") != cudaSuccess) return CUBLAS_STATUS_NOT_INITIALIZED;
  const Lock lock;
  *handle = new cublasContext;
  handles().insert(*handle);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
  const Lock lock;
  if (!exists(handle, "cublasDestroy")) return CUBLAS_STATUS_NOT_INITIALIZED;
  handles().erase(handle);
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
  if (!exists(handle, "cublasSetStream")) return CUBLAS_STATUS_NOT_INITIALIZED;
  handle->stream = stream;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void* workspace, size_t bytes) {
  if (!exists(handle, "cublasSetWorkspace")) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (bytes == 0 || is_allocated(workspace, bytes)) return CUBLAS_STATUS_SUCCESS;
  illegal(cudaErrorInvalidValue, "cublasSetWorkspace beyond an allocation");
  return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
  if (!exists(handle, "cublasSetMathMode")) return CUBLAS_STATUS_NOT_INITIALIZED;
  handle->math = mode;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetMathMode(cublasHandle_t handle, cublasMath_t* mode) {
  if (!exists(handle, "cublasGetMathMode")) return CUBLAS_STATUS_NOT_INITIALIZED;
  *mode = handle->math;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetPointerMode_v2(cublasHandle_t handle, cublasPointerMode_t mode) {
  if (!exists(handle, "cublasSetPointerMode")) return CUBLAS_STATUS_NOT_INITIALIZED;
  handle->pointers = mode;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetPointerMode_v2(cublasHandle_t handle, cublasPointerMode_t* mode) {
  if (!exists(handle, "cublasGetPointerMode")) return CUBLAS_STATUS_NOT_INITIALIZED;
  *mode = handle->pointers;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSgemm_v2(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb,
                              int m, int n, int k, const float*, const float* a, int lda,
                              const float* b, int ldb, const float*, float* c, int ldc) {
  return multiply(
      {"cublasSgemm", handle, ta, tb, m, n, k, 1, {a, 4, lda}, {b, 4, ldb}, {c, 4, ldc}});
}

cublasStatus_t cublasDgemm_v2(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb,
                              int m, int n, int k, const double*, const double* a, int lda,
                              const double* b, int ldb, const double*, double* c, int ldc) {
  return multiply(
      {"cublasDgemm", handle, ta, tb, m, n, k, 1, {a, 8, lda}, {b, 8, ldb}, {c, 8, ldc}});
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb,
                            int m, int n, int k, const void*, const void* a, cudaDataType type_a,
                            int lda, const void* b, cudaDataType type_b, int ldb, const void*,
                            void* c, cudaDataType type_c, int ldc, cublasComputeType_t,
                            cublasGemmAlgo_t) {
  return multiply({"cublasGemmEx",
                   handle,
                   ta,
                   tb,
                   m,
                   n,
                   k,
                   1,
                   {a, size_of(type_a), lda},
                   {b, size_of(type_b), ldb},
                   {c, size_of(type_c), ldc}});
}

cublasStatus_t cublasSgemmEx(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb,
                             int m, int n, int k, const float*, const void* a, cudaDataType type_a,
                             int lda, const void* b, cudaDataType type_b, int ldb, const float*,
                             void* c, cudaDataType type_c, int ldc) {
  return multiply({"cublasSgemmEx",
                   handle,
                   ta,
                   tb,
                   m,
                   n,
                   k,
                   1,
                   {a, size_of(type_a), lda},
                   {b, size_of(type_b), ldb},
                   {c, size_of(type_c), ldc}});
}

cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t ta,
                                          cublasOperation_t tb, int m, int n, int k, const void*,
                                          const void* a, cudaDataType type_a, int lda,
                                          long long stride_a, const void* b, cudaDataType type_b,
                                          int ldb, long long stride_b, const void*, void* c,
                                          cudaDataType type_c, int ldc, long long stride_c,
                                          int batch, cublasComputeType_t, cublasGemmAlgo_t) {
  return multiply({"cublasGemmStridedBatchedEx",
                   handle,
                   ta,
                   tb,
                   m,
                   n,
                   k,
                   batch,
                   {a, size_of(type_a), lda, stride_a},
                   {b, size_of(type_b), ldb, stride_b},
                   {c, size_of(type_c), ldc, stride_c}});
}

cublasStatus_t cublasSgemmStridedBatched(cublasHandle_t handle, cublasOperation_t ta,
                                         cublasOperation_t tb, int m, int n, int k, const float*,
                                         const float* a, int lda, long long stride_a,
                                         const float* b, int ldb, long long stride_b, const float*,
                                         float* c, int ldc, long long stride_c, int batch) {
  return multiply({"cublasSgemmStridedBatched",
                   handle,
                   ta,
                   tb,
                   m,
                   n,
                   k,
                   batch,
                   {a, 4, lda, stride_a},
                   {b, 4, ldb, stride_b},
                   {c, 4, ldc, stride_c}});
}

cublasStatus_t cublasDgemmStridedBatched(cublasHandle_t handle, cublasOperation_t ta,
                                         cublasOperation_t tb, int m, int n, int k, const double*,
                                         const double* a, int lda, long long stride_a,
                                         const double* b, int ldb, long long stride_b,
                                         const double*, double* c, int ldc, long long stride_c,
                                         int batch) {
  return multiply({"cublasDgemmStridedBatched",
                   handle,
                   ta,
                   tb,
                   m,
                   n,
                   k,
                   batch,
                   {a, 8, lda, stride_a},
                   {b, 8, ldb, stride_b},
                   {c, 8, ldc, stride_c}});
}

cublasStatus_t cublasSgemv_v2(cublasHandle_t handle, cublasOperation_t, int, int, const float*,
                              const float* a, int, const float*, int, const float*, float* y, int) {
  return launch("cublasSgemv", handle, a, y);
}
cublasStatus_t cublasDgemv_v2(cublasHandle_t handle, cublasOperation_t, int, int, const double*,
                              const double* a, int, const double*, int, const double*, double* y,
                              int) {
  return launch("cublasDgemv", handle, a, y);
}

cublasStatus_t cublasSdot_v2(cublasHandle_t handle, int n, const float* x, int, const float* y, int,
                             float* result) {
  return dot("cublasSdot", handle, n, x, y, result);
}
cublasStatus_t cublasDdot_v2(cublasHandle_t handle, int n, const double* x, int, const double* y,
                             int, double* result) {
  return dot("cublasDdot", handle, n, x, y, result);
}

}  // extern "C"
