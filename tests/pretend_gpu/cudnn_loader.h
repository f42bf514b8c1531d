#pragma once

namespace pretend_gpu {

/// Loads libpretend_cudnn.so, which lies beside this library, once LibTorch is there.
void load_cudnn();

}  // namespace pretend_gpu
