// The twin of private_update.cu: the same arithmetic on whole groups, in loops for the vectoriser.
#include "kernels/private_update.h"

#include <string.h>  // explicit_bzero is not in <cstring>

#include <algorithm>

// A contracted multiply-add would give each instruction set its own bits.
#if defined(__clang__)
#pragma clang fp contract(off)
#else
#pragma GCC optimize("fp-contract=off")
#endif

#include "kernels/device/update_rule.cuh"
#include "kernels/every_x86_64.h"

namespace sfumato {
namespace {

using device::TensorRates;
using device::UpdateCoefficients;
using device::UpdateForm;

/// Groups whose noise is made at a time: their arrays stay in the first-level cache.
constexpr std::int64_t kGroupsAtATime = 4;
constexpr std::int64_t kElementsAtATime = kGroupsAtATime * kNormalsPerGroup;

#define SFUMATO_INLINE inline __attribute__((always_inline))
#define SFUMATO_EVERY_X86 SFUMATO_EVERY_X86_64

/// Part of one tensor; what the rule does not use is not read.
struct Range {
  float* __restrict__ sum;
  float* __restrict__ value;
  float* __restrict__ first;
  float* __restrict__ second;
  std::int64_t count;
};

template <UpdateForm kForm>
SFUMATO_INLINE void update_range(const Range& range, const UpdateCoefficients& coefficients,
                                 const TensorRates& tensor_rates) {
  // Copies, so that no store is taken to change them.
  const UpdateCoefficients c = coefficients;
  const TensorRates rates = tensor_rates;
  float* __restrict__ sum = range.sum;
  float* __restrict__ value = range.value;
  float* __restrict__ first = range.first;
  float* __restrict__ second = range.second;
  for (std::int64_t i = 0; i < range.count; ++i) {
    float v = value[i], m = 0, s = 0;
    if constexpr (kForm != UpdateForm::kPlain) m = first[i];
    if constexpr (kForm == UpdateForm::kAdam) s = second[i];
    device::update_element<kForm>(sum[i], c, rates, v, m, s);
    value[i] = v;
    if constexpr (kForm != UpdateForm::kPlain) first[i] = m;
    if constexpr (kForm == UpdateForm::kAdam) second[i] = s;
    sum[i] = 0;
  }
}

SFUMATO_EVERY_X86 void update_plain(const Range& range, const UpdateCoefficients& c,
                                    const TensorRates& rates) {
  update_range<UpdateForm::kPlain>(range, c, rates);
}
SFUMATO_EVERY_X86 void update_momentum(const Range& range, const UpdateCoefficients& c,
                                       const TensorRates& rates) {
  update_range<UpdateForm::kMomentum>(range, c, rates);
}
SFUMATO_EVERY_X86 void update_adam(const Range& range, const UpdateCoefficients& c,
                                   const TensorRates& rates) {
  update_range<UpdateForm::kAdam>(range, c, rates);
}

/// sum := the gradient that the update takes.
SFUMATO_EVERY_X86 void release(float* __restrict__ sum, const float* __restrict__ noise,
                               std::int64_t count, const UpdateCoefficients& coefficients) {
  const UpdateCoefficients c = coefficients;
  for (std::int64_t i = 0; i < count; ++i)
    sum[i] = device::released_gradient(device::ScalarOps::add(sum[i], noise[i]), c);
}
SFUMATO_EVERY_X86 void scale(float* sum, std::int64_t count, float factor) {
  for (std::int64_t i = 0; i < count; ++i) sum[i] = device::ScalarOps::mul(sum[i], factor);
}

SFUMATO_EVERY_X86 void follow(float* __restrict__ average, const float* __restrict__ value,
                              std::int64_t count, const UpdateCoefficients& coefficients) {
  const UpdateCoefficients c = coefficients;
  for (std::int64_t i = 0; i < count; ++i)
    average[i] = device::update_average(average[i], value[i], c);
}

using UpdateFunction = void (*)(const Range&, const UpdateCoefficients&, const TensorRates&);

UpdateFunction update_function(UpdateForm form) {
  if (form == UpdateForm::kAdam) return update_adam;
  return form == UpdateForm::kMomentum ? update_momentum : update_plain;
}

float* from(float* array, std::int64_t begin) { return array == nullptr ? nullptr : array + begin; }

}  // namespace

std::int64_t prepare_private_update(PrivateUpdateTensor* host_table, std::int64_t tensors) {
  std::int64_t groups = 0;
  for (std::int64_t j = 0; j < tensors; ++j) {
    const std::int64_t count = host_table[j].count;
    const std::int64_t before = host_table[j].noise_group;
    if (count < 0 || before < 0 || before > kMaxNormalsPerStream / kNormalsPerGroup ||
        count > kMaxNormalsPerStream - before * kNormalsPerGroup)
      return -1;
    host_table[j].first_group = groups;
    groups += (count + kNormalsPerGroup - 1) / kNormalsPerGroup;
  }
  return groups;
}

void private_update_cpu(const PrivateUpdateTensor* table, std::int64_t tensors,
                        std::int64_t group_begin, std::int64_t group_end,
                        const PrivateUpdateOptions& options, const ChaChaKey& key) {
  if (group_begin >= group_end) return;
  const UpdateCoefficients c = device::update_coefficients(options);
  const UpdateFunction update = update_function(device::update_form(options));
  alignas(64) float noise[kElementsAtATime];
  std::int64_t index = device::tensor_of_group(table, static_cast<int>(tensors), group_begin);
  for (std::int64_t group = group_begin; group < group_end;) {
    while (index + 1 < tensors && table[index + 1].first_group <= group) ++index;
    const PrivateUpdateTensor& tensor = table[index];
    const std::int64_t begin = (group - tensor.first_group) * kNormalsPerGroup;
    const std::int64_t groups = std::min(kGroupsAtATime, group_end - group);
    const std::int64_t end = std::min(tensor.count, begin + groups * kNormalsPerGroup);
    float* sum = tensor.sum + begin;
    if (options.add_noise) {
      const std::int64_t before = tensor.noise_group * kNormalsPerGroup;
      chacha_gaussian_cpu(noise, before + begin, before + end, key,
                          {options.nonce_stream, options.nonce_step, tensor.nonce_tensor},
                          options.stddev);
      release(sum, noise, end - begin, c);
    } else {
      scale(sum, end - begin, c.scale);
    }
    update({sum, tensor.value + begin, from(tensor.first, begin), from(tensor.second, begin),
            end - begin},
           c, device::tensor_rates(c, tensor.rate_scale));
    if (tensor.average != nullptr)
      follow(tensor.average + begin, tensor.value + begin, end - begin, c);
    group += (end - begin + kNormalsPerGroup - 1) / kNormalsPerGroup;
  }
  explicit_bzero(noise, sizeof noise);
}

}  // namespace sfumato
