// What of cuBLAS is not pretended: linear algebra and complex numbers. Without cuBLAS's header,
// since their arguments do not matter: called with any, they say that they are not there.
#include "pretend_gpu/report.h"

namespace {

constexpr int kNotSupported = 15;  // CUBLAS_STATUS_NOT_SUPPORTED

int refuse(const char* function) {
  pretend_gpu::not_pretended(function);
  return kNotSupported;
}

}  // namespace

extern "C" {

int cublasCdotc_v2() { return refuse("cublasCdotc_v2"); }
int cublasCdotu_v2() { return refuse("cublasCdotu_v2"); }
int cublasCgelsBatched() { return refuse("cublasCgelsBatched"); }
int cublasCgemmStridedBatched() { return refuse("cublasCgemmStridedBatched"); }
int cublasCgemm_v2() { return refuse("cublasCgemm_v2"); }
int cublasCgemv_v2() { return refuse("cublasCgemv_v2"); }
int cublasCgeqrfBatched() { return refuse("cublasCgeqrfBatched"); }
int cublasCgetrfBatched() { return refuse("cublasCgetrfBatched"); }
int cublasCgetrsBatched() { return refuse("cublasCgetrsBatched"); }
int cublasCtrsmBatched() { return refuse("cublasCtrsmBatched"); }
int cublasCtrsm_v2() { return refuse("cublasCtrsm_v2"); }
int cublasDgelsBatched() { return refuse("cublasDgelsBatched"); }
int cublasDgeqrfBatched() { return refuse("cublasDgeqrfBatched"); }
int cublasDgetrfBatched() { return refuse("cublasDgetrfBatched"); }
int cublasDgetrsBatched() { return refuse("cublasDgetrsBatched"); }
int cublasDotEx() { return refuse("cublasDotEx"); }
int cublasDtrsmBatched() { return refuse("cublasDtrsmBatched"); }
int cublasDtrsm_v2() { return refuse("cublasDtrsm_v2"); }
int cublasSgelsBatched() { return refuse("cublasSgelsBatched"); }
int cublasSgeqrfBatched() { return refuse("cublasSgeqrfBatched"); }
int cublasSgetrfBatched() { return refuse("cublasSgetrfBatched"); }
int cublasSgetrsBatched() { return refuse("cublasSgetrsBatched"); }
int cublasStrsmBatched() { return refuse("cublasStrsmBatched"); }
int cublasStrsm_v2() { return refuse("cublasStrsm_v2"); }
int cublasZdotc_v2() { return refuse("cublasZdotc_v2"); }
int cublasZdotu_v2() { return refuse("cublasZdotu_v2"); }
int cublasZgelsBatched() { return refuse("cublasZgelsBatched"); }
int cublasZgemmStridedBatched() { return refuse("cublasZgemmStridedBatched"); }
int cublasZgemm_v2() { return refuse("cublasZgemm_v2"); }
int cublasZgemv_v2() { return refuse("cublasZgemv_v2"); }
int cublasZgeqrfBatched() { return refuse("cublasZgeqrfBatched"); }
int cublasZgetrfBatched() { return refuse("cublasZgetrfBatched"); }
int cublasZgetrsBatched() { return refuse("cublasZgetrsBatched"); }
int cublasZtrsmBatched() { return refuse("cublasZtrsmBatched"); }
int cublasZtrsm_v2() { return refuse("cublasZtrsm_v2"); }

}  // extern "C"
