// Dialling servers that misbehave, and addresses that the kernel has no use for.
#include "io/nbd_dial.h"

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cstring>
#include <string_view>
#include <thread>

#include "tests/support/temp_folder.h"

namespace underlay {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr milliseconds kLimit{200};
constexpr milliseconds kLateness{3000};  // a busy machine

struct Pair {
  UniqueFd server;
  UniqueFd client;
};

Pair connected_pair() {
  std::array<int, 2> ends{};
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0);
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

UniqueFd listen_at(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  REQUIRE(path.size() < sizeof(address.sun_path));
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  REQUIRE(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  REQUIRE(::listen(fd.get(), 1) == 0);
  return fd;
}

void check_refused(const std::string& uri, ErrorKind kind) {
  CAPTURE(uri);
  const auto dialed = dial_nbd(uri, kLimit);
  REQUIRE(!dialed);
  CHECK(dialed.error().kind == kind);
  CHECK(dialed.error().file == uri);
}

void check_limit_is_kept(const Result<DialedExport>& dialed, Clock::time_point start) {
  REQUIRE(!dialed);
  CHECK(dialed.error().message == "cannot connect: no answer within 200 ms");
  CHECK(Clock::now() - start >= kLimit);
  CHECK(Clock::now() - start < kLimit + kLateness);
}

TEST_CASE("nbd dial: the URI of a Unix socket escapes what a URI may not have") {
  CHECK(nbd_unix_uri("/run/a.sock", "") == "nbd+unix:///?socket=/run/a.sock");
  CHECK(nbd_unix_uri("/run/a b&c?%", "x/y z") ==
        "nbd+unix:///x%2Fy%20z?socket=/run/a%20b%26c%3F%25");
  CHECK(nbd_unix_uri("/\xc3\xa9", "#+") == "nbd+unix:///%23%2B?socket=/%C3%A9");
}

TEST_CASE("nbd dial: what the kernel cannot use is refused before anything is connected") {
  check_refused("nbds://localhost/?tls-certificates=relative", ErrorKind::kUsage);
  check_refused("nbds+unix:///?socket=/nonexistent", ErrorKind::kUnsupported);
  for (const char* uri : {"", "/run/a.sock", "nbd:", "nbd+vsock://1:2/", "nbd+ssh://host/",
                          "http://localhost/", "nbd:unix:/run/a.sock"}) {
    check_refused(uri, ErrorKind::kUsage);
  }
}

TEST_CASE("nbd dial: a socket that is not there is not found") {
  check_refused("nbd+unix:///?socket=/nonexistent/socket", ErrorKind::kNotFound);
}

TEST_CASE("nbd dial: a URI that is not complete is an error") {
  check_refused("nbd+unix:///", ErrorKind::kIo);
}

TEST_CASE("nbd dial: a server that never answers is waited for as long as allowed") {
  const TempFolder folder;
  const UniqueFd listening = listen_at(folder.path("socket"));
  const auto start = Clock::now();
  check_limit_is_kept(dial_nbd(nbd_unix_uri(folder.path("socket"), ""), kLimit), start);
}

TEST_CASE("nbd dial: a server that trickles gets no more time") {
  Pair pair = connected_pair();
  std::jthread trickle([fd = pair.server.get()](const std::stop_token& stop) {
    // The client takes the rest for options' answers of endless length.
    std::string greeting("NBDMAGICIHAVEOPT\0\3", 18);
    for (size_t at = 0; !stop.stop_requested() && at < greeting.size(); ++at) {
      if (::send(fd, &greeting[at], 1, MSG_NOSIGNAL) != 1) return;
      std::this_thread::sleep_for(milliseconds(50));
    }
  });
  const auto start = Clock::now();
  check_limit_is_kept(dial_nbd_over(std::move(pair.client), "", kLimit), start);
}

TEST_CASE("nbd dial: a server that hangs up, or is none, is an error at once") {
  for (const std::string_view words : {"", "NBDMAGIC", "HTTP/1.1 400 Bad Request\r\n\r\n"}) {
    Pair pair = connected_pair();
    REQUIRE(::send(pair.server.get(), words.data(), words.size(), 0) ==
            static_cast<ssize_t>(words.size()));
    ::shutdown(pair.server.get(), SHUT_WR);
    const auto dialed = dial_nbd_over(std::move(pair.client), "", milliseconds(10'000));
    REQUIRE(!dialed);
    CHECK(dialed.error().message.find("no answer within") == std::string::npos);
  }
}

}  // namespace
}  // namespace underlay
