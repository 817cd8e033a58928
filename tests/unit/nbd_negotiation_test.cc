// The handshake with servers that say anything: what is wrong is an error in one line, costs no
// memory and no time, and is never a way into plain text.
#include "io/nbd_negotiation.h"

#include <doctest/doctest.h>
#include <sys/socket.h>

#include <array>
#include <optional>
#include <string>

#include "io/bytes.h"

namespace underlay {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr uint64_t kReplyMagic = 0x3e889045565a9;
constexpr uint32_t kStarttls = 5;
constexpr uint32_t kGo = 7;
constexpr uint32_t kAck = 1;
constexpr uint32_t kInfo = 3;
constexpr uint32_t kError = 1u << 31;

template <class T>
std::string be(T value) {
  std::array<std::byte, sizeof(T)> bytes{};
  store_be(bytes, 0, value);
  return std::string(as_text(bytes));
}

std::string greeting(uint16_t flags = 3) { return "NBDMAGICIHAVEOPT" + be(flags); }

std::string reply_of_length(uint32_t option, uint32_t type, uint32_t length) {
  return be(kReplyMagic) + be(option) + be(type) + be(length);
}
std::string reply(uint32_t option, uint32_t type, const std::string& data = "") {
  return reply_of_length(option, type, static_cast<uint32_t>(data.size())) + data;
}
std::string info_export(uint64_t size, uint16_t flags) {
  return reply(kGo, kInfo, be(uint16_t{0}) + be(size) + be(flags));
}
std::string info_block(uint32_t minimum) {
  return reply(kGo, kInfo,
               be(uint16_t{3}) + be(minimum) + be(uint32_t{4096}) + be(uint32_t{1 << 25}));
}

// A server that says its words, whatever it is asked, and hangs up unless it is to stay silent.
class Peer {
 public:
  explicit Peer(const std::string& words, milliseconds limit = milliseconds(20'000),
                bool hangs_up = true) {
    std::array<int, 2> ends{};
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0);
    server_ = UniqueFd(ends[0]);
    REQUIRE(::send(server_.get(), words.data(), words.size(), 0) ==
            static_cast<ssize_t>(words.size()));
    if (hangs_up) ::shutdown(server_.get(), SHUT_WR);
    auto socket = TimedSocket::adopt(UniqueFd(ends[1]), Clock::now() + limit);
    REQUIRE(socket);
    client_.emplace(std::move(*socket));
  }

  TimedSocket& client() { return *client_; }
  // What the client has said up to now.
  std::string heard() {
    std::array<char, 8192> bytes{};
    const ssize_t got = ::recv(server_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    return got <= 0 ? "" : std::string(bytes.data(), static_cast<size_t>(got));
  }
  // What the client has left unread.
  size_t unread() {
    std::array<char, 8192> bytes{};
    const ssize_t got = ::recv(client_->fd(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    return got <= 0 ? 0 : static_cast<size_t>(got);
  }

 private:
  UniqueFd server_;
  std::optional<TimedSocket> client_;
};

// One line that has `part`.
template <class T>
void check_fails(const Result<T>& negotiated, ErrorKind kind, const std::string& part) {
  CAPTURE(part);
  REQUIRE(!negotiated);
  CHECK(negotiated.error().kind == kind);
  const std::string line = negotiated.error().to_string();
  CAPTURE(line);
  CHECK(line.find(part) != std::string::npos);
  CHECK(line.find('\n') == std::string::npos);
}

// Nothing but the question for TLS is ever said in plain text.
void check_starttls_fails(const std::string& words, ErrorKind kind, const std::string& part) {
  Peer peer(words);
  check_fails(negotiate_starttls(peer.client()), kind, part);
  const std::string asked = "IHAVEOPT" + be(kStarttls) + be(uint32_t{0});
  const std::string heard = peer.heard();
  CHECK((heard.size() <= 4 || heard.substr(4) == asked));
}

void check_go_fails(const std::string& words, ErrorKind kind, const std::string& part) {
  Peer peer(words);
  check_fails(negotiate_go(peer.client(), "disk"), kind, part);
}

TEST_CASE("nbd negotiation: TLS is asked for first, and what follows consent is left to it") {
  Peer peer(greeting() + reply(kStarttls, kAck) + "\x16\x03\x03");
  REQUIRE(negotiate_starttls(peer.client()));
  CHECK(peer.heard() == be(uint32_t{3}) + "IHAVEOPT" + be(kStarttls) + be(uint32_t{0}));
  CHECK(peer.unread() == 3);
}

TEST_CASE("nbd negotiation: a server that pads its answers is told not to only if it can") {
  Peer peer(greeting(1) + reply(kStarttls, kAck));
  REQUIRE(negotiate_starttls(peer.client()));
  CHECK(peer.heard().substr(0, 4) == be(uint32_t{1}));
}

TEST_CASE("nbd negotiation: a server without TLS is refused, there is no way on in plain text") {
  const std::string old_style =
      "NBDMAGIC" + be(uint64_t{0x0000420281861253}) + std::string(8 + 4 + 124, '\0');
  check_starttls_fails(old_style, ErrorKind::kDenied, "the server has no TLS");
  check_starttls_fails(greeting(0), ErrorKind::kDenied, "the server has no TLS");
  check_starttls_fails(greeting() + reply(kStarttls, kError | 1), ErrorKind::kDenied,
                       "does not offer TLS");
  check_starttls_fails(greeting() + reply(kStarttls, kError | 2, "not\nhere"), ErrorKind::kDenied,
                       "does not offer TLS: \"not\\x0ahere\"");
  check_starttls_fails(greeting() + reply(kStarttls, kError | 4), ErrorKind::kDenied,
                       "refuses TLS with error 4");
}

TEST_CASE("nbd negotiation: an answer to STARTTLS that is none is an error") {
  check_starttls_fails("HTTP/1.1 400 Bad Request\r\n\r\n", ErrorKind::kMalformed, "no NBD server");
  check_starttls_fails(greeting() + be(uint64_t{1}) + std::string(12, '\0'), ErrorKind::kMalformed,
                       "begins with 0x1");
  check_starttls_fails(greeting() + reply(kGo, kAck), ErrorKind::kMalformed, "answers option 7");
  check_starttls_fails(greeting() + reply(kStarttls, kAck, "x"), ErrorKind::kMalformed,
                       "type 0x1 and 1 bytes");
  check_starttls_fails(greeting() + reply(kStarttls, kInfo), ErrorKind::kMalformed, "type 0x3");
  for (const uint32_t length : {4099u, 1u << 31, 0xffffffffu}) {
    check_starttls_fails(greeting() + reply_of_length(kStarttls, kError | 2, length),
                         ErrorKind::kMalformed, "at most 4098");
  }
}

TEST_CASE("nbd negotiation: an export is asked for by its name and told by its size") {
  Peer peer(reply(kGo, kInfo, be(uint16_t{2}) + "a description") +
            info_export(12345 * 512, 0xffff) + info_block(4096) + reply(kGo, kAck) + "more");
  const auto negotiated = negotiate_go(peer.client(), "disk");
  REQUIRE(negotiated);
  CHECK(negotiated->size_bytes == 12345 * 512);
  CHECK(negotiated->transmission_flags == 0x0d7f);  // none of structured replies
  CHECK(negotiated->min_block == 4096);
  CHECK(peer.heard() == "IHAVEOPT" + be(kGo) + be(uint32_t{12}) + be(uint32_t{4}) + "disk" +
                            be(uint16_t{1}) + be(uint16_t{3}));
  CHECK(peer.unread() == 4);
}

TEST_CASE("nbd negotiation: without a block size it is 1") {
  Peer peer(info_export(512, 1) + reply(kGo, kAck));
  const auto negotiated = negotiate_go(peer.client(), "");
  REQUIRE(negotiated);
  CHECK(negotiated->min_block == 1);
}

TEST_CASE("nbd negotiation: an export that is not given is an error of its kind") {
  check_go_fails(reply(kGo, kError | 6, "what?"), ErrorKind::kNotFound,
                 "no export named 'disk': \"what?\"");
  check_go_fails(reply(kGo, kError | 1), ErrorKind::kUnsupported, "too old");
  check_go_fails(reply(kGo, kError | 5), ErrorKind::kDenied, "with error 5");
  check_go_fails(reply(kGo, 0xffffffff, std::string(4098, '\xff')), ErrorKind::kDenied,
                 "with error 2147483647");
}

TEST_CASE("nbd negotiation: an export that is described wrongly is an error") {
  const std::string size = be(uint64_t{512});
  check_go_fails(reply(kGo, kAck), ErrorKind::kMalformed, "without the export's size");
  check_go_fails(reply(kGo, kInfo), ErrorKind::kMalformed, "no type");
  check_go_fails(reply(kGo, kInfo, be(uint16_t{0}) + size), ErrorKind::kMalformed, "10 bytes");
  check_go_fails(reply(kGo, kInfo, be(uint16_t{0}) + size + be(uint16_t{1}) + "x"),
                 ErrorKind::kMalformed, "13 bytes");
  check_go_fails(info_export(uint64_t{1} << 63, 1), ErrorKind::kLimit, "2^63");
  check_go_fails(info_export(512, 2), ErrorKind::kMalformed, "flags 0x2");
  check_go_fails(info_block(0), ErrorKind::kMalformed, "at least 0");
  check_go_fails(info_block(513), ErrorKind::kMalformed, "at least 513");
  check_go_fails(reply(kGo, kInfo, be(uint16_t{3}) + be(uint32_t{512})), ErrorKind::kMalformed,
                 "6 bytes");
  check_go_fails(info_export(512, 1) + reply(kGo, kAck, "x"), ErrorKind::kMalformed, "type 0x1");
  check_go_fails(info_export(512, 1) + reply(kGo, 2), ErrorKind::kMalformed, "type 0x2");
  check_go_fails(info_export(512, 1) + reply(kStarttls, kAck), ErrorKind::kMalformed,
                 "answers option 5");
  check_go_fails(reply_of_length(kGo, kInfo, 0xffffffff), ErrorKind::kMalformed, "at most 4098");
}

TEST_CASE("nbd negotiation: a server that never comes to an end is left") {
  std::string endless;
  for (int i = 0; i < 65; ++i) endless += info_export(512, 1);
  check_go_fails(endless, ErrorKind::kLimit, "more than 64 answers");
}

TEST_CASE("nbd negotiation: a server that hangs up anywhere is an error at once") {
  const std::string first = greeting() + reply(kStarttls, kAck);
  for (size_t length = 0; length < first.size(); ++length) {
    check_starttls_fails(first.substr(0, length), ErrorKind::kIo, "closed the connection");
  }
  const std::string second = info_export(512, 1) + reply(kGo, kAck);
  for (size_t length = 0; length < second.size(); ++length) {
    check_go_fails(second.substr(0, length), ErrorKind::kIo, "closed the connection");
  }
}

TEST_CASE("nbd negotiation: a silent server is waited for as long as allowed") {
  const auto start = Clock::now();
  Peer peer(greeting(), milliseconds(100), false);
  const auto negotiated = negotiate_starttls(peer.client());
  REQUIRE(!negotiated);
  CHECK(negotiated.error().message == "the server did not answer in time");
  CHECK(Clock::now() - start >= milliseconds(100));
  CHECK(Clock::now() - start < milliseconds(3100));  // a busy machine
}

}  // namespace
}  // namespace underlay
