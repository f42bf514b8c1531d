#pragma once
#include <cstdint>

namespace sfumato {

/// Sets the number of threads of all tensor work (0: all cores).
void set_threads(std::int64_t threads);

}  // namespace sfumato
