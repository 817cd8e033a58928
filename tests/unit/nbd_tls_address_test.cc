// Addresses of exports with TLS.
#include "io/nbd_tls_address.h"

#include <doctest/doctest.h>

#include <string>

namespace underlay {
namespace {

NbdTlsAddress good(const std::string& uri) {
  CAPTURE(uri);
  const auto address = parse_nbd_tls_address(uri);
  REQUIRE(address);
  return *address;
}

void check_refused(const std::string& uri, const std::string& part) {
  CAPTURE(uri);
  const auto address = parse_nbd_tls_address(uri);
  REQUIRE(!address);
  CHECK(address.error().kind == ErrorKind::kUsage);
  CAPTURE(address.error().message);
  CHECK(address.error().message.find(part) != std::string::npos);
}

TEST_CASE("nbd tls address: host, port and export") {
  const auto plain = good("nbds://host");
  CHECK(plain.host == "host");
  CHECK(plain.port == "10809");
  CHECK(plain.export_name == "");
  CHECK(plain.tls.hostname == "host");
  CHECK(plain.tls.verify_peer);
  const auto full = good("nbds://host.example:12/a%20b/c?tls-certificates=/keys%2Fx");
  CHECK(full.port == "12");
  CHECK(full.export_name == "a b/c");
  CHECK(full.tls.certificates == "/keys/x");
  const auto six = good("nbds://[::1]:10810//x");
  CHECK(six.host == "::1");
  CHECK(six.port == "10810");
  CHECK(six.export_name == "/x");
  CHECK(good("nbds://[fe80::1%25eth0]/").host == "fe80::1%eth0");
}

TEST_CASE("nbd tls address: users, keys and names") {
  const auto user = good("nbds://al%40ice@host/?tls-psk-file=/keys.psk");
  CHECK(user.tls.user == "al@ice");
  CHECK(user.tls.psk_file == "/keys.psk");
  const auto all =
      good("nbds://host/?tls-username=bob&tls-hostname=other&tls-verify-peer=no&tls-psk-file=/k");
  CHECK(all.tls.user == "bob");
  CHECK(all.tls.hostname == "other");
  CHECK_FALSE(all.tls.verify_peer);
  CHECK(good("nbds://host/?tls-verify-peer=true").tls.verify_peer);
}

TEST_CASE("nbd tls address: what is none is refused") {
  check_refused("nbd://host/", "begin with nbds://");
  check_refused("nbds+unix:///", "begin with nbds://");
  for (const char* uri :
       {"nbds://", "nbds:///export", "nbds://:10/", "nbds://user@/", "nbds://[]/"}) {
    check_refused(uri, "names no host");
  }
  for (const char* port : {"0", "65536", "x", "1x", "-1", "+1", "99999999999999999999"}) {
    check_refused("nbds://host:" + std::string(port), "port");
  }
  check_refused("nbds://[::1/", "[ without ]");
  check_refused("nbds://[::1]x/", "] must be followed");
  check_refused("nbds://host/#part", "%23");
  for (const char* wrong : {"%", "%4", "%zz", "%00", "%-1"}) {
    check_refused("nbds://host/" + std::string(wrong), "hexadecimal");
  }
  check_refused("nbds://host/" + std::string(4097, 'x'), "4097 bytes");
}

TEST_CASE("nbd tls address: keys that are wrong, relative or unknown are refused") {
  check_refused("nbds://host/?tls-certificates", "KEY=VALUE");
  check_refused("nbds://host/?tls-certificates=keys", "must be an absolute path");
  check_refused("nbds://host/?tls-psk-file=", "must be an absolute path");
  check_refused("nbds://host/?tls-verify-peer=maybe", "true or false");
  check_refused("nbds://host/?tls-verify=no", "\"tls-verify\" is no key");
  check_refused("nbds://host/?tls-certificates=/a&tls-psk-file=/b", "exclude each other");
}

}  // namespace
}  // namespace underlay
