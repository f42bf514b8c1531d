#pragma once
#include <ATen/core/Tensor.h>

#include <functional>

#include "sfumato/grad/gradient_engine.h"

namespace sfumato {

/// Checks on synthetic data, before the first step, that the gradient of one example does not
/// depend on the others (batch normalisation and minibatch statistics mix them, which voids the
/// sensitivity bound), and with it that every trainable parameter is covered. `loss(tape, variant)`
/// returns the [2] losses of a batch of two examples with `draws` draws each: the first example
/// must be the same for variants 0 and 1, the second one must differ. PrivacyError if the loss or
/// norm of the first changes by more than rounding, or if the loss reaches parameters past the
/// tape. The engine's sum is left at zero.
void verify_isolation(GradientEngine& engine, int64_t draws,
                      const std::function<at::Tensor(Tape&, int variant)>& loss);

}  // namespace sfumato
