#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/exact_sum.h"
#include "sfumato/grad/parameter_slices.h"

namespace sfumato {

/// The sum of the clipped gradients of a logical batch in whole multiples of a fixed power of two,
/// C 2^-40 or down to half of that: sums of physical batches, each rounded to such a multiple, are
/// added as integers, so that it has the same bits whichever ranks they came from and in whatever
/// order. (What one physical batch sums up in float32 depends on which records are together: ranks
/// take whole ones.) What rounding adds to the sensitivity is in privacy/bounds.h. int64 elements
/// in one flat list (ParameterSlices): 8 bytes a parameter, held from the beginning, so that
/// measured peaks of memory leave it out.
class ExactSum {
 public:
  /// `on_kernels`: a recorded graph adds to it, always in the same way: add_flat() alone.
  /// PrivacyError for more parameters than the margin for rounding is made for.
  ExactSum(std::shared_ptr<const ParameterSlices> slices, double clip_norm_l2, bool on_kernels);

  /// Before physical batches of that many examples are added, padding included. PrivacyError where
  /// integers could overflow.
  void expect(int64_t examples);
  /// Of examples that were expected and not added after all.
  void withdraw(int64_t examples) { examples_ -= examples; }
  /// Adds the sums of one physical batch of `examples`, in the layout of the parameters. Allocates
  /// nothing. What is no number adds nothing, and nothing adds more than examples could.
  void add(const std::vector<at::Tensor>& sums, int64_t examples);
  /// The same from a flat list.
  void add_flat(const at::Tensor& sums, int64_t examples);

  /// Adds up what all ranks have, for the parts that are this rank's: collective.
  void reduce();
  /// This rank's parts, as float32, into `parts`; then the sum is zero.
  void take(const std::vector<at::Tensor>& parts);
  void clear();

 private:
  ExactGrid grid(int64_t examples) const;

  std::shared_ptr<const ParameterSlices> slices_;
  bool on_kernels_;
  double unit_;  ///< what 1 stands for
  at::Tensor integers_;
  bool is_empty_ = true;  ///< integers_ hold nothing, not even zeros
  int64_t examples_ = 0;
};

}  // namespace sfumato
