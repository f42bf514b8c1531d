#include "emulation/guarded_memory.h"

#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(place, bytes) (void)(place), (void)(bytes)
#define ASAN_UNPOISON_MEMORY_REGION(place, bytes) (void)(place), (void)(bytes)
#endif

namespace sfumato::emulation {
namespace {

/// 0xffa5 in every two bytes: a NaN of any width that no store of 0xff bytes imitates.
unsigned char margin_byte(const unsigned char* place) {
  return reinterpret_cast<std::uintptr_t>(place) % 2 == 0 ? 0xa5 : 0xff;
}

bool intact(const unsigned char* begin, const unsigned char* end) {
  for (const unsigned char* place = begin; place < end; ++place)
    if (*place != margin_byte(place)) return false;
  return true;
}

}  // namespace

GuardedMemory::GuardedMemory(std::size_t bytes)
    : storage_((bytes + 2 * kMargin + 16) / sizeof(Line) + 2), bytes_(bytes) {
  unsigned char* const begin = storage_.front().bytes;
  unsigned char* const end = begin + storage_.size() * sizeof(Line);
  data_ = begin + kMargin + 16;
  for (unsigned char* place = begin; place < end; ++place) *place = margin_byte(place);
  forget();
  ASAN_POISON_MEMORY_REGION(begin, static_cast<std::size_t>(data_ - begin));
  ASAN_POISON_MEMORY_REGION(data_ + bytes_, static_cast<std::size_t>(end - data_) - bytes_);
}

GuardedMemory::GuardedMemory(GuardedMemory&& other) noexcept
    : storage_(std::move(other.storage_)),
      bytes_(std::exchange(other.bytes_, 0)),
      data_(std::exchange(other.data_, nullptr)) {
  other.storage_.clear();
}

GuardedMemory::~GuardedMemory() {
  if (!storage_.empty()) ASAN_UNPOISON_MEMORY_REGION(&storage_[0], storage_.size() * sizeof(Line));
}

void GuardedMemory::forget() { std::memset(data_, 0xff, bytes_); }

bool GuardedMemory::margins_intact() const {
  const unsigned char* const begin = storage_.front().bytes;
  const unsigned char* const end = begin + storage_.size() * sizeof(Line);
  ASAN_UNPOISON_MEMORY_REGION(begin, static_cast<std::size_t>(end - begin));
  const bool all = intact(begin, data_) && intact(data_ + bytes_, end);
  ASAN_POISON_MEMORY_REGION(begin, static_cast<std::size_t>(data_ - begin));
  ASAN_POISON_MEMORY_REGION(data_ + bytes_, static_cast<std::size_t>(end - data_) - bytes_);
  return all;
}

}  // namespace sfumato::emulation
