#include "dist/host.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <ifaddrs.h>
#include <netinet/in.h>

#include <array>

namespace sfumato {
namespace {

/// An address of this machine that others could reach; "" if it has none.
std::string outer_address() {
  ifaddrs* all = nullptr;
  if (::getifaddrs(&all) != 0) return {};
  std::string found;
  for (const ifaddrs* each = all; each != nullptr; each = each->ifa_next) {
    if (each->ifa_addr == nullptr || each->ifa_addr->sa_family != AF_INET) continue;
    std::array<char, INET_ADDRSTRLEN> text{};
    const auto* const address = reinterpret_cast<const sockaddr_in*>(each->ifa_addr);
    ::inet_ntop(AF_INET, &address->sin_addr, text.data(), text.size());
    if (!is_loopback(text.data())) found = text.data();
  }
  ::freeifaddrs(all);
  return found;
}

TEST(Host, HasAnAddressTowardsEveryOther) {
  EXPECT_EQ(address_towards("127.0.0.1", 29500), "127.0.0.1");
  EXPECT_TRUE(is_loopback(address_towards("localhost", 29500)));
  EXPECT_EQ(address_towards("256.1.1.1.", 29500), "");
  const std::string outer = outer_address();
  EXPECT_TRUE(outer.empty() || address_towards(outer, 29500) == outer);
}

// Debian's /etc/hosts says 127.0.1.1 for the machine's own name, which is what rank 0 is told.
TEST(Host, IsReachedByAllWhereOneIsElsewhere) {
  EXPECT_EQ(address_for_all("10.0.0.5", {"10.0.0.5", "10.0.0.6"}, 29500), "10.0.0.5");
  EXPECT_EQ(address_for_all("127.0.1.1", {"127.0.1.1", "127.0.0.1", ""}, 29500), "127.0.1.1");
  EXPECT_EQ(address_for_all("", {""}, 29500), "127.0.0.1");
  const std::string outer = outer_address();
  if (outer.empty()) GTEST_SKIP() << "this machine has no address but loopback";
  EXPECT_EQ(address_for_all("127.0.1.1", {"127.0.1.1", "127.0.0.1", outer}, 29500), outer);
}

TEST(Host, IsTheSameForProcessesOfOne) {
  EXPECT_EQ(host_identity(), host_identity());
  EXPECT_NE(host_identity(), host_name() + ".");
}

}  // namespace
}  // namespace sfumato
