#pragma once
#include "kernels/bias_norm.h"
#include "kernels/chacha_gaussian.h"
#include "kernels/clip_accumulate.h"
#include "kernels/clip_factors.h"
#include "kernels/conv_weight_grad.h"
#include "kernels/embedding_norm.h"
#include "kernels/exact_sum.h"
#include "kernels/gram_norm.h"
#include "kernels/group_norm_backward.h"
#include "kernels/group_norm_forward.h"
#include "kernels/layer_norm_backward.h"
#include "kernels/linear_weight_grad.h"
#include "kernels/private_update.h"
#include "kernels/row_norm.h"
#include "kernels/scale_examples.h"
#include "kernels/upload.h"

namespace sfumato {

/// All launchers of one build of the kernels: nvcc's, found in libsfumato_cuda.so, or in tests the
/// emulator's.
struct KernelSet {
#define SFUMATO_KERNEL(name) decltype(&launch_##name) name;
#include "kernels/kernel_list.inc"
#undef SFUMATO_KERNEL
};

/// The set that this library was built with (kernels/kernel_set.cu).
const KernelSet& compiled_kernels();

}  // namespace sfumato
