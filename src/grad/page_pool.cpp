#include "sfumato/grad/page_pool.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <c10/util/Exception.h>
#include <sys/mman.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <set>
#include <unordered_map>
#include <utility>

namespace sfumato {
namespace {

/// Smaller blocks are malloc's: it handles them well, and there are many.
constexpr size_t kSmallestLarge = size_t{128} << 10;
constexpr size_t kPage = 4096;
/// As the memory meter's: c10 ignores an allocator of a lower priority than the last one.
constexpr uint8_t kPoolPriority = 200;
/// Live and kept pages together may exceed the peak of live ones by one part in this many: with
/// none at all a few sizes never fit and are mapped anew in every step.
constexpr size_t kSlack = 8;

size_t round_to_pages(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

/// Page ranges: live ones by address, free ones by address and by size.
class PagePool {
 public:
  void* allocate(size_t bytes) {
    const size_t size = round_to_pages(bytes);
    const std::lock_guard lock(mutex_);
    char* block = take_kept(size);
    if (block == nullptr) block = map_new(size);
    live_[block] = size;
    live_bytes_ += size;
    peak_ = std::max(peak_, live_bytes_);
    return block;
  }

  /// False if the block is not the pool's.
  bool release(void* block) {
    const std::lock_guard lock(mutex_);
    const auto found = live_.find(static_cast<char*>(block));
    if (found == live_.end()) return false;
    auto [address, size] = *found;
    live_.erase(found);
    live_bytes_ -= size;
    keep(address, size);
    return true;
  }

  PagePoolUse use() {
    const std::lock_guard lock(mutex_);
    return {static_cast<int64_t>(live_bytes_), static_cast<int64_t>(peak_),
            static_cast<int64_t>(kept_bytes_)};
  }

 private:
  using BySize = std::set<std::pair<size_t, char*>>;

  /// Best fit, the rest stays kept.
  char* take_kept(size_t size) {
    const auto found = by_size_.lower_bound({size, nullptr});
    if (found == by_size_.end()) return nullptr;
    auto [whole, address] = *found;
    forget(address, whole);
    if (whole > size) remember(address + size, whole - size);
    return address;
  }

  /// Joined with its neighbours.
  void keep(char* address, size_t size) {
    auto after = by_address_.lower_bound(address);
    if (after != by_address_.end() && address + size == after->first) {
      const auto [next, next_size] = *after;
      forget(next, next_size);
      size += next_size;
    }
    auto before = by_address_.lower_bound(address);
    if (before != by_address_.begin()) {
      --before;
      const auto [previous, previous_size] = *before;
      if (previous + previous_size == address) {
        forget(previous, previous_size);
        address = previous;
        size += previous_size;
      }
    }
    remember(address, size);
  }

  char* map_new(size_t size) {
    const size_t peak = std::max(peak_, live_bytes_ + size), ceiling = peak + peak / kSlack;
    while (!by_size_.empty() && live_bytes_ + kept_bytes_ + size > ceiling) {
      // Largest first: fewest calls; only as much of it as is needed.
      auto [whole, address] = *by_size_.rbegin();
      const size_t excess = live_bytes_ + kept_bytes_ + size - ceiling;
      forget(address, whole);
      const size_t cut = std::min(whole, round_to_pages(excess));
      ::munmap(address + (whole - cut), cut);
      if (whole > cut) remember(address, whole - cut);
    }
    void* block = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    TORCH_CHECK_WITH(OutOfMemoryError, block != MAP_FAILED, "not enough memory for ", size,
                     " bytes");
    // A wish: fewer page faults, fewer misses of the address cache.
    ::madvise(block, size, MADV_HUGEPAGE);
    return static_cast<char*>(block);
  }

  void remember(char* address, size_t size) {
    by_address_.emplace(address, size);
    by_size_.emplace(size, address);
    kept_bytes_ += size;
  }
  void forget(char* address, size_t size) {
    by_address_.erase(address);
    by_size_.erase({size, address});
    kept_bytes_ -= size;
  }

  std::mutex mutex_;
  std::unordered_map<char*, size_t> live_;
  std::map<char*, size_t> by_address_;
  BySize by_size_;
  size_t live_bytes_ = 0, peak_ = 0, kept_bytes_ = 0;
};

/// Never destroyed: tensors outlive static objects.
PagePool& pool() {
  static auto* const instance = new PagePool;
  return *instance;
}

void free_pooled(void* block) {
  if (block != nullptr && !pool().release(block)) c10::free_cpu(block);
}

class PoolAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* block = bytes < kSmallestLarge ? c10::alloc_cpu(bytes) : pool().allocate(bytes);
    return {block, block, &free_pooled, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_pooled; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
};

}  // namespace

void install_page_pool() {
#ifndef __SANITIZE_ADDRESS__  // which must see every block by itself
  static const bool installed = [] {
    c10::SetCPUAllocator(new PoolAllocator, kPoolPriority);
    return true;
  }();
  (void)installed;
#endif
}

PagePoolUse page_pool_use() { return pool().use(); }

}  // namespace sfumato
