#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace sfumato {

/// Of this machine, as it calls itself; "this machine" where it has no name.
std::string host_name();
/// The same for processes of one machine and one container, and for no others.
std::string host_identity();

/// The numeric address from which this machine reaches `host`: that of the network card through
/// which others on that way reach it. Its own name says nothing: in containers it is often unknown,
/// and Debian gives it the address 127.0.1.1. "" where the name is unknown or there is no way.
std::string address_towards(const std::string& host, std::uint16_t port);
bool is_loopback(const std::string& address);

/// The address at which all ranks, which are at `addresses`, reach this one, which is at `own`:
/// where that is loopback, but some rank is elsewhere, the one towards that.
std::string address_for_all(const std::string& own, const std::vector<std::string>& addresses,
                            std::uint16_t port);

}  // namespace sfumato
