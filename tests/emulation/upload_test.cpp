// Tables that travel as kernel arguments.
#include "kernels/upload.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <vector>

#include "emulation/device_buffer.h"
#include "emulation/kernel_test.h"

namespace sfumato::emulation {
namespace {

TEST(Upload, EveryByteArrivesWhateverTheNumberOfLaunches) {
  for_each_schedule([](std::uint64_t) {
    for (const std::int64_t bytes :
         {std::int64_t{0}, std::int64_t{1}, std::int64_t{255}, std::int64_t{257}, kUploadBytes - 1,
          kUploadBytes, kUploadBytes + 1, 3 * kUploadBytes + 17}) {
      std::vector<unsigned char> host(static_cast<std::size_t>(bytes));
      for (std::size_t i = 0; i < host.size(); ++i)
        host[i] = static_cast<unsigned char>((i * 37 + i / 251) & 0x7f);
      DeviceBuffer<unsigned char> place(static_cast<std::size_t>(bytes));
      ASSERT_LAUNCHED(launch_upload(place.data(), host.data(), bytes, nullptr));
      EXPECT_EQ(place.to_vector(), host);
      EXPECT_TRUE(place.margins_intact());
    }
  });
}

}  // namespace
}  // namespace sfumato::emulation
