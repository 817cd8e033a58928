// Networks of TCP peers, "192.0.2.0/24" or "2001:db8::/32".
#pragma once

#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "io/error.h"

namespace underlay {

// An IP address as 16 bytes; that of IPv4 is mapped (RFC 4291, section 2.5.5.2).
using IpAddress = std::array<uint8_t, 16>;

struct Network {
  IpAddress address{};
  unsigned prefix = 0;  // bits that count, of 128

  bool contains(const IpAddress& other) const;
};

// An address alone is a network of one. `option` is for the message. Fails with kUsage.
Result<Network> parse_network(std::string_view option, const std::string& text);

// Who is at the other end; nullopt when that is no IP address (a Unix socket).
std::optional<IpAddress> peer_address(int socket);

}  // namespace underlay
