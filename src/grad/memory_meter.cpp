#include "sfumato/grad/memory_meter.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>
#include <malloc.h>

#include <atomic>
#include <fstream>
#include <string>

namespace sfumato {
namespace {

/// c10 replaces its allocator only for one of at least the same priority.
constexpr uint8_t kPriority = 200;

struct Counts {
  std::atomic<int64_t> live{0};
  std::atomic<int64_t> peak{0};
};
Counts g_counts;

/// How the allocator below the meter frees; set before the first block is counted.
std::atomic<c10::DeleterFnPtr> g_free{nullptr};

int64_t size_of(void* block) { return static_cast<int64_t>(::malloc_usable_size(block)); }

void free_block(void* block) {
  if (block == nullptr) return;
  g_counts.live -= size_of(block);
  g_free.load()(block);
}

}  // namespace

class MemoryMeter::CountingAllocator final : public c10::Allocator {
 public:
  explicit CountingAllocator(c10::Allocator* base) : base_(base) {}
  c10::Allocator* base() const { return base_; }

  // Context and data are one pointer: oneDNN allocates raw memory through this interface.
  c10::DataPtr allocate(size_t bytes) override {
    c10::DataPtr data = base_->allocate(bytes);
    void* block = data.release_context();
    if (block == nullptr) return {nullptr, nullptr, &free_block, c10::Device(c10::DeviceType::CPU)};
    const int64_t live = g_counts.live += size_of(block);
    int64_t peak = g_counts.peak.load();
    while (live > peak && !g_counts.peak.compare_exchange_weak(peak, live)) {
    }
    return {block, block, &free_block, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_block; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

 private:
  c10::Allocator* base_;
};

MemoryMeter::MemoryMeter() {
  // Never destroyed: a tensor made under it keeps its address to grow later.
  static auto* const counter = new CountingAllocator(c10::GetCPUAllocator());
  counter_ = counter;
  g_free = counter->base()->raw_deleter();
  TORCH_CHECK(g_free.load() != nullptr, "the CPU allocator has no raw memory to count");
  g_counts.live = 0;
  g_counts.peak = 0;
  c10::SetCPUAllocator(counter_, kPriority);
}

MemoryMeter::~MemoryMeter() { c10::SetCPUAllocator(counter_->base(), kPriority); }

int64_t MemoryMeter::peak_bytes() const { return g_counts.peak.load(); }

int64_t available_memory_bytes() {
  std::ifstream file("/proc/meminfo");
  std::string key, unit;
  int64_t value = 0;
  while (file >> key >> value >> unit)
    if (key == "MemAvailable:") return value * 1024;
  return 0;
}

}  // namespace sfumato
