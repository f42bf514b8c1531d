#include "emulation/async_proxy.h"

#include <cstring>
#include <vector>

namespace sfumato::emulation {
namespace {

std::uint32_t address_in(const GuardedMemory& shared, const void* place) {
  return AsyncProxy::kWindow +
         static_cast<std::uint32_t>(static_cast<const unsigned char*>(place) -
                                    static_cast<const unsigned char*>(shared.data()));
}

}  // namespace

void AsyncProxy::open(std::size_t bytes) { view_.emplace(bytes); }

void AsyncProxy::forget() {
  view_->forget();
  copies_.clear();
}

void AsyncProxy::fence(const GuardedMemory& shared) {
  if (view_->bytes() > 0) std::memcpy(view_->data(), shared.data(), view_->bytes());
}

std::string AsyncProxy::problem(const TensorCopy& copy, const GuardedMemory& shared) const {
  TensorMap map;
  if (reinterpret_cast<std::uintptr_t>(copy.map) % 64 != 0 || !TensorMap::read(copy.map, map))
    return "a tensor copy without a tensor map";
  const std::string why = map.problem(copy.rank, copy.coordinates, copy.im2col, copy.offsets);
  if (!why.empty()) return why;
  const auto* const place = static_cast<const unsigned char*>(copy.to);
  const auto* const begin = static_cast<const unsigned char*>(shared.data());
  if (place < begin || place + map.box_elements() * 2 > begin + shared.bytes())
    return "a tensor copy beside the shared memory";
  if (address_in(shared, copy.to) % 128 != 0) return "a tensor copy to a misaligned place";
  bool inside = true, known = true;
  const std::uint32_t barrier = address_in(shared, copy.barrier);
  for (std::uint32_t i = 0; i < 8; i += 2) known = known && element(barrier + i, inside) != 0xffff;
  if (!inside || !known)
    return "a tensor copy to an mbarrier whose initialisation no fence.proxy.async has shown it";
  return "";
}

void AsyncProxy::start(const TensorCopy& copy, GuardedMemory& shared) {
  Copy one{copy, {}, address_in(shared, copy.to)};
  TensorMap::read(copy.map, one.map);
  const std::vector<std::uint16_t> unknown(static_cast<std::size_t>(one.map.box_elements()),
                                           0xffff);
  write(one, unknown.data(), shared);
  copies_.push_back(one);
}

AsyncProxy::Landed AsyncProxy::land(GuardedMemory& shared, bool youngest) {
  const Copy copy = youngest ? copies_.back() : copies_.front();
  if (youngest)
    copies_.pop_back();
  else
    copies_.pop_front();
  write(copy, copy.map.elements(copy.what.coordinates, copy.what.offsets).data(), shared);
  return {copy.what.barrier, copy.map.box_elements() * 2};
}

void AsyncProxy::write(const Copy& copy, const std::uint16_t* elements, GuardedMemory& shared) {
  const auto count = static_cast<std::uint32_t>(copy.map.box_elements());
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::uint32_t linear = copy.address + 2 * i;
    const std::size_t at = (copy.map.swizzled ? swizzled_128(linear) : linear) - kWindow;
    if (at + 2 > view_->bytes()) continue;  // an aligned box is a whole number of spans
    std::memcpy(static_cast<unsigned char*>(shared.data()) + at, elements + i, 2);
    std::memcpy(static_cast<unsigned char*>(view_->data()) + at, elements + i, 2);
  }
}

std::uint16_t AsyncProxy::element(std::uint32_t address, bool& inside) const {
  std::uint16_t value = 0xffff;
  if (address < kWindow || address - kWindow + 2 > view_->bytes())
    inside = false;
  else
    std::memcpy(&value, static_cast<const unsigned char*>(view_->data()) + (address - kWindow), 2);
  return value;
}

}  // namespace sfumato::emulation
