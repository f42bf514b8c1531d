#include "kernels/kernel_set.h"

namespace sfumato {

const KernelSet& compiled_kernels() {
  static const KernelSet set = {
#define SFUMATO_KERNEL(name) &launch_##name,
#include "kernels/kernel_list.inc"
#undef SFUMATO_KERNEL
  };
  return set;
}

}  // namespace sfumato
