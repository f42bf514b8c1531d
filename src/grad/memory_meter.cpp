#include "sfumato/grad/memory_meter.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <fstream>
#include <mutex>
#include <string>
#include <unordered_map>

namespace sfumato {
namespace {

/// c10 replaces its allocator only for one of at least the same priority.
constexpr uint8_t kMeterPriority = 200;

/// Sizes of the blocks that were counted, and how the allocator that they came from frees.
struct Counts {
  std::mutex mutex;
  std::unordered_map<void*, int64_t> sizes;
  int64_t live = 0, peak = 0;
  c10::DeleterFnPtr free = nullptr;
};

/// Never destroyed: tensors outlive static objects.
Counts& counts() {
  static auto* const instance = new Counts;
  return *instance;
}

void count(void* block, int64_t bytes) {
  Counts& c = counts();
  const std::lock_guard lock(c.mutex);
  c.sizes[block] = bytes;
  c.live += bytes;
  c.peak = std::max(c.peak, c.live);
}

void free_counted(void* block) {
  if (block == nullptr) return;
  Counts& c = counts();
  {
    const std::lock_guard lock(c.mutex);
    const auto found = c.sizes.find(block);
    if (found != c.sizes.end()) {
      c.live -= found->second;
      c.sizes.erase(found);
    }
  }
  c.free(block);
}

}  // namespace

class MemoryMeter::CountingAllocator final : public c10::Allocator {
 public:
  c10::Allocator* base() const { return base_; }
  /// What blocks come from and go back to. An allocator must free what the one before it made.
  void set_base(c10::Allocator* base) { base_ = base; }

  // Context and data are one pointer: oneDNN allocates raw memory through this interface.
  c10::DataPtr allocate(size_t bytes) override {
    c10::DataPtr data = base_->allocate(bytes);
    void* block = data.release_context();
    if (block != nullptr) count(block, static_cast<int64_t>(bytes));
    return {block, block, &free_counted, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_counted; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

 private:
  c10::Allocator* base_ = nullptr;
};

MemoryMeter::MemoryMeter() {
  // Never destroyed: a tensor made under it keeps its address to grow later.
  static auto* const counter = new CountingAllocator;
  counter_ = counter;
  counter->set_base(c10::GetCPUAllocator());
  Counts& c = counts();
  const std::lock_guard lock(c.mutex);
  c.free = counter->base()->raw_deleter();
  TORCH_CHECK(c.free != nullptr, "the CPU allocator has no raw memory to count");
  // What an earlier meter counted and still lives is not this one's.
  c.sizes.clear();
  c.live = c.peak = 0;
  c10::SetCPUAllocator(counter_, kMeterPriority);
}

MemoryMeter::~MemoryMeter() {
  // With its own priority: c10 refuses to go back to a lower one.
  c10::SetCPUAllocator(counter_->base(), kMeterPriority);
}

int64_t MemoryMeter::peak_bytes() const {
  Counts& c = counts();
  const std::lock_guard lock(c.mutex);
  return c.peak;
}

int64_t available_memory_bytes() {
  std::ifstream file("/proc/meminfo");
  std::string key, unit;
  int64_t value = 0;
  while (file >> key >> value >> unit)
    if (key == "MemAvailable:") return value * 1024;
  return 0;
}

}  // namespace sfumato
