#pragma once
#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <iterator>
#include <string>
#include <vector>

#include "emulated/place.h"
#include "sfumato/audit/clipped_sum_inspector.h"
#include "sfumato/grad/gradient_engine.h"

namespace sfumato::test {

/// tf32 lets our kernels round the operands of products, and on a GPU the libraries too; with fp32
/// libraries form all gradients.
inline constexpr Precision kPrecisions[] = {Precision::kFp32, Precision::kTf32, Precision::kBf16};

inline at::ScalarType type_of(Precision precision) {
  return precision == Precision::kBf16 ? at::kBFloat16 : at::kFloat;
}
/// Relative difference to the CPU's float32 that rounding of operands explains.
inline double tolerance_of(Precision precision) {
  return precision == Precision::kFp32 ? 2e-5 : precision == Precision::kTf32 ? 2e-3 : 2e-2;
}

/// LibTorch's settings for a precision, put back at the end.
class PrecisionScope {
 public:
  explicit PrecisionScope(Precision precision)
      : cudnn_(at::globalContext().allowTF32CuDNN()),
        cublas_(at::globalContext().allowTF32CuBLAS()),
        deterministic_(at::globalContext().deterministicCuDNN()) {
    set(precision != Precision::kFp32, precision != Precision::kFp32, true);
  }
  ~PrecisionScope() { set(cudnn_, cublas_, deterministic_); }
  PrecisionScope(const PrecisionScope&) = delete;
  PrecisionScope& operator=(const PrecisionScope&) = delete;

 private:
  static void set(bool cudnn, bool cublas, bool deterministic) {
    at::Context& context = at::globalContext();
    context.setAllowTF32CuDNN(cudnn);
    context.setAllowTF32CuBLAS(cublas);
    context.setDeterministicCuDNN(deterministic);
  }
  bool cudnn_, cublas_, deterministic_;
};

/// Skips where no kernels run; numbers are the same in every run.
class OnKernels : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = why_no_kernels(); !why.empty()) GTEST_SKIP() << why;
    at::manual_seed(20240607);
  }
};

using Tensors = std::vector<at::Tensor>;

inline constexpr AlgorithmPolicy kAllPolicies[] = {AlgorithmPolicy::kKeep, AlgorithmPolicy::kGram,
                                                   AlgorithmPolicy::kDirect,
                                                   AlgorithmPolicy::kAuto};
/// Without a GPU nothing is measured: kAuto is the first candidate, kKeep.
inline std::vector<AlgorithmPolicy> different_policies() {
  std::vector<AlgorithmPolicy> all(std::begin(kAllPolicies), std::end(kAllPolicies));
  if (!on_gpu()) all.pop_back();
  return all;
}
inline constexpr Clipping kAllClippings[] = {Clipping::kFlat, Clipping::kPerLayer,
                                             Clipping::kAutomatic};

/// A copy on the CPU in float64, of any layout and type; undefined stays undefined.
inline at::Tensor host(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.detach().cpu().to(at::kDouble).contiguous() : tensor;
}
inline double norm_on_host(const Tensors& tensors) {
  double squared = 0;
  for (const at::Tensor& t : tensors) squared += host(t).square().sum().item<double>();
  return std::sqrt(squared);
}
inline double distance_on_host(const Tensors& a, const Tensors& b) {
  double squared = 0;
  for (std::size_t j = 0; j < a.size(); ++j)
    squared += host(a.at(j)).sub(host(b.at(j))).square().sum().item<double>();
  return std::sqrt(squared);
}
/// Of [n] values.
inline std::vector<double> values_on_host(const at::Tensor& tensor) {
  const at::Tensor flat = host(tensor).view({-1});
  return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
}

/// The sum that an engine holds, copied: on kernels its buffers are used again.
inline Tensors taken(GradientEngine& engine) {
  const ClippedSum sum = engine.take();
  Tensors copies;
  for (const at::Tensor& t : ClippedSumInspector::sums(sum)) copies.push_back(host(t));
  return copies;
}

inline bool same_bits(const Tensors& a, const Tensors& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t j = 0; j < a.size(); ++j)
    if (!host(a[j]).equal(host(b[j]))) return false;
  return true;
}

}  // namespace sfumato::test
