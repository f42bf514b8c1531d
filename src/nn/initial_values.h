#pragma once
#include "sfumato/nn/module.h"

namespace sfumato {

/// PyTorch's start of a layer that sums over inputs: weight, then bias (undefined: none), uniform
/// within 1 / sqrt(fan in), which is Kaiming-uniform with a = sqrt(5) (He et al. 2015) for the
/// weight. Dimension 0 of the weight are the outputs.
void fill_by_fan_in(Parameter& weight, Parameter& bias, at::Generator& generator);

/// The start of a norm: weight 1, bias 0. Nothing is drawn.
void fill_as_identity(Parameter& weight, Parameter& bias);

}  // namespace sfumato
