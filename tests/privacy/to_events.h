#pragma once
#include <span>
#include <vector>

#include "sfumato/privacy/event.h"

namespace sfumato::test {

inline std::vector<PrivacyEvent> to_events(std::span<const Phase> phases) {
  return {phases.begin(), phases.end()};
}

}  // namespace sfumato::test
