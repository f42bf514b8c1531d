#pragma once
#include <cuda_runtime.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "emulation/emulator.h"

namespace sfumato::emulation {

/// The launch fails at run time and says `part`; the next kernel runs as if nothing had been.
template <class Launch>
void expect_failure(Launch launch, const std::string& part) {
  clear_error();
  EXPECT_EQ(launch(), cudaErrorLaunchFailure);
  EXPECT_THAT(last_error(), testing::HasSubstr(part));
  EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

}  // namespace sfumato::emulation
