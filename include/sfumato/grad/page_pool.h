#pragma once
#include <cstdint>

namespace sfumato {

/// Makes large CPU tensors reuse each other's memory. A step allocates and frees the same few
/// hundred large tensors every time: malloc either returns them to the system, and pays a page
/// fault for every 4 KiB, or keeps a heap with holes, and pays in memory. The pool keeps freed
/// pages, cuts and joins them as needed, and gives pages back to the system as soon as live and
/// kept ones together would exceed the most that was ever live by an eighth. Once per process,
/// before work starts; harmless when repeated, without effect under the address sanitizer.
void install_page_pool();

/// Bytes of large tensors, now and at their peak.
struct PagePoolUse {
  int64_t live = 0, peak = 0;
  int64_t kept = 0;  ///< freed pages that are kept
};
PagePoolUse page_pool_use();

}  // namespace sfumato
