#include "nn/initial_values.h"

#include <ATen/core/Generator.h>

#include <cmath>

namespace sfumato {

void fill_by_fan_in(Parameter& weight, Parameter& bias, at::Generator& generator) {
  const int64_t fan_in = weight.value.numel() / weight.value.size(0);
  const double bound = 1 / std::sqrt(static_cast<double>(fan_in));
  weight.value.uniform_(-bound, bound, generator);
  if (bias.value.defined()) bias.value.uniform_(-bound, bound, generator);
}

void fill_as_identity(Parameter& weight, Parameter& bias) {
  weight.value.fill_(1);
  bias.value.zero_();
}

}  // namespace sfumato
