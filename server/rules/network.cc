#include "server/rules/network.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <charconv>
#include <cstring>

namespace underlay {
namespace {

constexpr size_t kMapped = 12;  // bytes before an IPv4 address

IpAddress mapped(const in_addr& address) {
  IpAddress out{};
  out[10] = out[11] = 0xff;
  std::memcpy(out.data() + kMapped, &address, sizeof(address));
  return out;
}

IpAddress plain(const in6_addr& address) {
  IpAddress out{};
  std::memcpy(out.data(), &address, out.size());
  return out;
}

}  // namespace

bool Network::contains(const IpAddress& other) const {
  for (unsigned bit = 0; bit < prefix; bit += 8) {
    const unsigned left = std::min(prefix - bit, 8u);
    const auto mask = static_cast<uint8_t>(0xff00u >> left);
    if (((address[bit / 8] ^ other[bit / 8]) & mask) != 0) return false;
  }
  return true;
}

Result<Network> parse_network(std::string_view option, const std::string& text) {
  const size_t slash = text.find('/');
  const std::string host = text.substr(0, slash);
  in_addr v4{};
  in6_addr v6{};
  const bool is_v4 = ::inet_pton(AF_INET, host.c_str(), &v4) == 1;
  const bool valid = is_v4 || ::inet_pton(AF_INET6, host.c_str(), &v6) == 1;
  const unsigned most = is_v4 ? 32 : 128;
  unsigned prefix = most;
  bool valid_prefix = true;
  if (slash != std::string::npos) {
    const char* end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data() + slash + 1, end, prefix);
    valid_prefix = parsed.ec == std::errc() && parsed.ptr == end && prefix <= most;
  }
  if (!valid || !valid_prefix) {
    return fail(ErrorKind::kUsage, "{}: \"{}\" is no network such as 192.0.2.0/24 or 2001:db8::/32",
                option, printable(text, 80));
  }
  return is_v4 ? Network{.address = mapped(v4), .prefix = prefix + 8 * unsigned{kMapped}}
               : Network{.address = plain(v6), .prefix = prefix};
}

std::optional<IpAddress> peer_address(int socket) {
  sockaddr_storage peer{};
  socklen_t length = sizeof(peer);
  if (::getpeername(socket, reinterpret_cast<sockaddr*>(&peer), &length) != 0) return std::nullopt;
  if (peer.ss_family == AF_INET) {
    return mapped(reinterpret_cast<const sockaddr_in&>(peer).sin_addr);
  }
  if (peer.ss_family == AF_INET6) {
    return plain(reinterpret_cast<const sockaddr_in6&>(peer).sin6_addr);
  }
  return std::nullopt;
}

}  // namespace underlay
