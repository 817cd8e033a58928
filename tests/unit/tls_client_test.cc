// What a client needs before it meets a server: files that are missing or wrong are said in one
// line. Handshakes are tested with real servers, in tests/kernel.
#include "io/tls_client.h"

#include <doctest/doctest.h>
#include <sys/socket.h>

#include <array>
#include <fstream>
#include <string>

#include "tests/support/temp_folder.h"

namespace underlay {
namespace {

Error refusal(const TlsClientOptions& options) {
  const auto client = TlsClient::create(options, TlsVersion::k12);
  REQUIRE(!client);
  CHECK(client.error().to_string().find('\n') == std::string::npos);
  return client.error();
}

TEST_CASE("tls client: a folder of certificates must have its authority's, and keys with them") {
  const TempFolder folder;
  TlsClientOptions options;
  options.certificates = folder.path("none");
  CHECK(refusal(options).message.find("no ca-cert.pem") != std::string::npos);
  options.certificates = folder.path("");
  folder.write("ca-cert.pem", "no certificate");
  const Error wrong = refusal(options);
  CHECK(wrong.file.ends_with("ca-cert.pem"));
  CHECK(wrong.kind == ErrorKind::kMalformed);
}

TEST_CASE("tls client: a file of keys must have that of the user, in hexadecimal") {
  const TempFolder folder;
  TlsClientOptions options;
  options.psk_file = folder.path("keys.psk");
  options.user = "alice";
  CHECK(refusal(options).sys_errno == ENOENT);
  folder.write("keys.psk", "");
  CHECK(refusal(options).message.find("no key of user \"alice\"") != std::string::npos);
  folder.write("keys.psk", "bob:00112233\nalice2:44556677\n");
  CHECK(refusal(options).kind == ErrorKind::kNotFound);
  folder.write("keys.psk", "alice:xyz\n");
  CHECK(refusal(options).kind == ErrorKind::kMalformed);
  folder.write("keys.psk", "bob:00112233\r\nalice:00112233445566778899aabbccddeeff\r\n");
  CHECK(TlsClient::create(options, TlsVersion::k12).has_value());
  CHECK(TlsClient::create(options, TlsVersion::k13).has_value());
  options.psk_file = folder.path("");
  CHECK(refusal(options).message == "is no file");
  options.psk_file = folder.path("large");
  std::ofstream(options.psk_file).seekp((1 << 20) + 1) << "x";
  CHECK(refusal(options).kind == ErrorKind::kLimit);
}

TEST_CASE("kernel tls: what is no TCP connection is refused") {
  std::array<int, 2> ends{};
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0);
  const UniqueFd one(ends[0]);
  const UniqueFd other(ends[1]);
  const auto prepared = prepare_kernel_tls(one.get());
  REQUIRE(!prepared);
  CHECK(prepared.error().kind == ErrorKind::kUnsupported);
  CHECK(prepared.error().message == "the kernel has TLS for TCP connections only");
}

}  // namespace
}  // namespace underlay
