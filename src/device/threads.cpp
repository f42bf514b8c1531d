#include "sfumato/device/threads.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <thread>

namespace sfumato {

void set_threads(std::int64_t threads) {
  const std::int64_t cores = std::max<std::int64_t>(1, std::thread::hardware_concurrency());
  at::set_num_threads(static_cast<int>(threads > 0 ? threads : cores));
}

}  // namespace sfumato
