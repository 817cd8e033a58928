#include "server/handshake.h"

#include <doctest/doctest.h>

#include "server/limits.h"
#include "tests/support/handshake_client.h"
#include "tests/support/heap.h"

namespace underlay {
namespace {

using nbd::Info;
using nbd::Option;
using nbd::OptionReply;
using Client = HandshakeClient;
using Need = Handshake::Need;

std::string wire(const std::function<void(WireBuffer&)>& fill) {
  WireBuffer out;
  fill(out);
  return std::string(as_text(out.bytes()));
}

std::string export_info(uint64_t size, uint16_t flags) {
  return wire([&](WireBuffer& out) {
    out.put<uint16_t>(static_cast<uint16_t>(Info::kExport));
    out.put<uint64_t>(size);
    out.put<uint16_t>(flags);
  });
}

constexpr uint16_t kFlags =
    nbd::kHasFlags | nbd::kReadOnly | nbd::kSendFlush | nbd::kSendFua | nbd::kSendCache;

TEST_CASE("handshake: the greeting is fixed newstyle, without zeroes") {
  Client client;
  client.handshake.greet(client.heard);
  CHECK(as_text(client.heard.bytes()) == std::string_view("NBDMAGICIHAVEOPT\0\3", 18));
  CHECK(client.handshake.need() == Need::kInput);
}

TEST_CASE("handshake: client flags that nobody knows close the connection") {
  for (const uint32_t flags : {4u, 1u << 16, 0xfffffffcu}) {
    Client client;
    client.say_flags(flags | nbd::kClientFixedNewstyle);
    CHECK(client.handshake.need() == Need::kClose);
  }
}

TEST_CASE("handshake: a client that is not fixed newstyle may only name its export") {
  Client list;
  list.say_flags(nbd::kClientNoZeroes);
  list.say_option(Option::kList);
  CHECK(list.handshake.need() == Need::kClose);
  CHECK(list.heard.bytes().empty());
  Client old;
  old.say_flags(0);
  old.say_option(Option::kExportName, "disk");
  CHECK(old.handshake.need() == Need::kDone);
}

TEST_CASE("handshake: a wrong option magic closes the connection") {
  auto client = Client::ready();
  client.say(as_bytes("IHAVEOPS\0\0\0\3\0\0\0\0" + std::string(8, '\0')));
  CHECK(client.handshake.need() == Need::kClose);
}

// Every option that does not end the handshake, then GO and the first request.
std::string whole_script() {
  return wire([](WireBuffer& out) {
    const auto option = [&](Option type, std::string_view data = {}) {
      out.put<uint64_t>(nbd::kOptionMagic);
      out.put<uint32_t>(static_cast<uint32_t>(type));
      out.put<uint32_t>(static_cast<uint32_t>(data.size()));
      out.put_text(data);
    };
    out.put<uint32_t>(nbd::kClientFixedNewstyle | nbd::kClientNoZeroes);
    option(Option::kStarttls);
    option(static_cast<Option>(4), "peek");
    option(Option::kList);
    option(Option::kList, "surplus");
    option(Option::kInfo, info_data("none"));
    option(Option::kInfo, info_data("disk", {0, 1, 2, 3}));
    option(Option::kStructuredReply);
    option(Option::kListMetaContext, meta_data("disk", {"base:"}));
    option(static_cast<Option>(77), std::string(limits::kStoredOption + 1, 'x'));
    option(Option::kExtendedHeaders);
    option(Option::kSetMetaContext, meta_data("disk", {"base:allocation"}));
    option(Option::kGo, info_data("disk", {3}));
    out.put_text("REQUEST");
  });
}

TEST_CASE("handshake: how the bytes are cut into pieces changes nothing") {
  Client whole;
  whole.say(as_bytes(whole_script()));
  CHECK(whole.handshake.need() == Need::kDone);
  for (const size_t piece : {1u, 3u, 17u, 4096u}) {
    Client cut({}, piece);
    cut.say(as_bytes(whole_script()));
    CHECK(cut.handshake.need() == Need::kDone);
    CHECK(as_text(cut.heard.bytes()) == as_text(whole.heard.bytes()));
    CHECK(cut.handshake.negotiated().extended);
    CHECK(cut.handshake.negotiated().allocation);
  }
}

TEST_CASE("handshake: what follows GO is left to the transmission phase") {
  Client client;
  client.say(as_bytes(whole_script()));
  CHECK(client.unheard == "REQUEST");
}

TEST_CASE("handshake: option data up to 64 KiB is read, up to 32 MiB dropped and refused") {
  auto client = Client::ready();
  CHECK(client.result_of(static_cast<Option>(99), std::string(limits::kStoredOption, 'x')) ==
        OptionReply::kErrUnsupported);
  for (const uint32_t length : {(64u << 10) + 1, 32u << 20}) {
    client.say_header(static_cast<Option>(99), length);
    const std::string part(64 << 10, 'x');
    for (uint32_t left = length; left > 0;) {
      CHECK(client.heard.bytes().empty());  // the answer comes after the data
      const size_t now = std::min<size_t>(left, part.size());
      client.say(as_bytes(part).first(now));
      left -= static_cast<uint32_t>(now);
    }
    const auto answers = client.answers();
    REQUIRE(answers.size() == 1);
    CHECK(answers[0].type == OptionReply::kErrTooBig);
    CHECK(client.result_of(Option::kStructuredReply) == OptionReply::kAck);
  }
}

TEST_CASE("handshake: option data above 32 MiB closes the connection at once") {
  for (const uint32_t length : {(32u << 20) + 1, 0x7fffffffu, 0xffffffffu}) {
    for (const Option option : {Option::kGo, Option::kSetMetaContext, static_cast<Option>(99)}) {
      auto client = Client::ready();
      client.say_header(option, length);
      CHECK(client.handshake.need() == Need::kClose);
      CHECK(client.heard.bytes().empty());
    }
  }
}

TEST_CASE("handshake: an export name that is too long closes the connection") {
  auto longer = Client::ready();
  longer.say_header(Option::kExportName, limits::kStoredOption + 1);
  CHECK(longer.handshake.need() == Need::kClose);
  for (const std::string& name : {std::string(4097, 'n'), std::string("di\0sk", 5)}) {
    auto client = Client::ready();
    client.say_option(Option::kExportName, name);
    CHECK(client.handshake.need() == Need::kClose);
    CHECK(client.heard.bytes().empty());
  }
}

TEST_CASE("handshake: memory grows with what has arrived, not with what was announced") {
  std::vector<Client> clients;
  for (int i = 0; i < 64; ++i) clients.push_back(Client::ready());
  const size_t before = allocated_bytes();
  for (Client& client : clients) client.say_header(Option::kGo, limits::kStoredOption);
  CHECK(allocated_bytes() - before < 64 * 1024);
  for (Client& client : clients) client.say(as_bytes(std::string(100, 'x')));
  CHECK(allocated_bytes() - before < 64 * 1024);
}

TEST_CASE("handshake: queries for contexts cost no memory once they are answered") {
  const std::string data = meta_data("disk", std::vector<std::string>(16'000));
  std::vector<Client> clients;
  for (int i = 0; i < 16; ++i) clients.push_back(Client::ready());
  const size_t before = allocated_bytes();
  for (Client& client : clients) {
    client.say_option(Option::kListMetaContext, data);
    client.say_option(Option::kGo, info_data("disk"));
    CHECK(client.handshake.need() == Need::kDone);
    client.heard = WireBuffer();
  }
  CHECK(allocated_bytes() - before < 16 * 4096);
}

TEST_CASE("handshake: more options than any client needs close the connection") {
  auto client = Client::ready();
  for (unsigned i = 0; i < limits::kHandshakeOptions; ++i) {
    CHECK(client.result_of(static_cast<Option>(99)) == OptionReply::kErrUnsupported);
  }
  client.say_option(static_cast<Option>(99));
  CHECK(client.handshake.need() == Need::kClose);
}

TEST_CASE("handshake: EXPORT_NAME is answered with size, flags and, unless refused, zeroes") {
  const std::string answer = wire([](WireBuffer& out) {
    out.put<uint64_t>(4096);
    out.put<uint16_t>(kFlags);
  });
  auto brief = Client::ready();
  brief.say_option(Option::kExportName, "disk");
  CHECK(brief.handshake.need() == Need::kDone);
  CHECK(as_text(brief.heard.bytes()) == answer);
  Client full;
  full.say_flags(nbd::kClientFixedNewstyle);
  full.say_option(Option::kExportName, "disk");
  CHECK(as_text(full.heard.bytes()) == answer + std::string(124, '\0'));
}

TEST_CASE("handshake: EXPORT_NAME of no export closes without a word") {
  auto client = Client::ready();
  client.say_option(Option::kExportName, "none");
  CHECK(client.handshake.need() == Need::kClose);
  CHECK(client.heard.bytes().empty());
}

TEST_CASE("handshake: EXPORT_NAME after extended headers closes the connection") {
  auto client = Client::ready();
  CHECK(client.result_of(Option::kExtendedHeaders) == OptionReply::kAck);
  client.say_option(Option::kExportName, "disk");
  CHECK(client.handshake.need() == Need::kClose);
}

TEST_CASE("handshake: ABORT is acknowledged, also with data, and ends the connection") {
  for (const char* data : {"", "bye"}) {
    auto client = Client::ready();
    CHECK(client.result_of(Option::kAbort, data) == OptionReply::kAck);
    CHECK(client.handshake.need() == Need::kClose);
  }
}

TEST_CASE("handshake: LIST names every export with its description") {
  auto client = Client::ready();
  client.say_option(Option::kList);
  const auto answers = client.answers();
  REQUIRE(answers.size() == 3);
  CHECK(answers[0].type == OptionReply::kServer);
  CHECK(answers[0].payload == std::string(4, '\0'));
  CHECK(answers[1].payload == std::string("\0\0\0\4diska disk", 14));
  CHECK(answers[2].type == OptionReply::kAck);
  CHECK(client.handshake.need() == Need::kInput);
}

TEST_CASE("handshake: options without data are refused when they have some") {
  for (const Option option : {Option::kList, Option::kStructuredReply, Option::kExtendedHeaders}) {
    auto client = Client::ready();
    CHECK(client.result_of(option, "x") == OptionReply::kErrInvalid);
    CHECK(!client.handshake.negotiated().structured);
    CHECK(client.handshake.need() == Need::kInput);
  }
}

TEST_CASE("handshake: extended headers come once, and include structured replies") {
  auto client = Client::ready();
  CHECK(client.result_of(Option::kStructuredReply) == OptionReply::kAck);
  CHECK(!client.handshake.negotiated().extended);
  CHECK(client.result_of(Option::kExtendedHeaders) == OptionReply::kAck);
  CHECK(client.handshake.negotiated().extended);
  CHECK(client.handshake.negotiated().structured);
  CHECK(client.result_of(Option::kExtendedHeaders) == OptionReply::kErrInvalid);
  CHECK(client.result_of(Option::kStructuredReply) == OptionReply::kErrInvalid);
}

TEST_CASE("handshake: TLS is refused by policy, unknown options as unsupported") {
  auto client = Client::ready();
  CHECK(client.result_of(Option::kStarttls) == OptionReply::kErrPolicy);
  for (const uint32_t option : {0u, 4u, 12u, 0xffffffffu}) {
    CHECK(client.result_of(static_cast<Option>(option), "data") == OptionReply::kErrUnsupported);
  }
}

TEST_CASE("handshake: a server that demands TLS answers nothing else before it") {
  auto client = Client::ready({.tls = TlsMode::kRequire});
  for (const uint32_t option : {3u, 6u, 7u, 8u, 9u, 10u, 11u, 77u}) {
    CHECK(client.result_of(static_cast<Option>(option)) == OptionReply::kErrTlsRequired);
  }
  CHECK(client.result_of(Option::kAbort) == OptionReply::kAck);
  auto old = Client::ready({.tls = TlsMode::kRequire});
  old.say_option(Option::kExportName, "disk");
  CHECK(old.handshake.need() == Need::kClose);
}

TEST_CASE("handshake: TLS comes once, and forgets what was negotiated before") {
  for (const TlsMode mode : {TlsMode::kOffer, TlsMode::kRequire}) {
    auto client = Client::ready({.tls = mode});
    if (mode == TlsMode::kOffer) {
      CHECK(client.result_of(Option::kExtendedHeaders) == OptionReply::kAck);
      client.say_option(Option::kSetMetaContext, meta_data("disk", {"base:allocation"}));
      client.heard.clear();
    }
    CHECK(client.result_of(Option::kStarttls, "x") == OptionReply::kErrInvalid);
    CHECK(client.result_of(Option::kStarttls) == OptionReply::kAck);
    REQUIRE(client.handshake.need() == Need::kTls);
    client.handshake.encrypted();
    CHECK(client.handshake.need() == Need::kInput);
    CHECK(client.result_of(Option::kStarttls) == OptionReply::kErrInvalid);
    client.say_option(Option::kGo, info_data("disk"));
    CHECK(client.handshake.need() == Need::kDone);
    CHECK_FALSE(client.handshake.negotiated().structured);
    CHECK_FALSE(client.handshake.negotiated().any_context());
  }
}

TEST_CASE("handshake: an export that demands TLS is neither listed nor found without it") {
  auto client = Client::ready({.tls = TlsMode::kOffer});
  client.exports["disk"].needs_tls = true;
  CHECK(client.result_of(Option::kGo, info_data("disk")) == OptionReply::kErrTlsRequired);
  CHECK(client.result_of(Option::kInfo, info_data("disk")) == OptionReply::kErrTlsRequired);
  CHECK(client.result_of(Option::kListMetaContext, meta_data("disk", {})) ==
        OptionReply::kErrTlsRequired);
  client.say_option(Option::kList);
  CHECK(client.answers().size() == 2);  // the other one, and the end
  CHECK(client.result_of(Option::kStarttls) == OptionReply::kAck);
  client.handshake.encrypted();
  client.say_option(Option::kList);
  CHECK(client.answers().size() == 3);
  client.say_option(Option::kGo, info_data("disk"));
  CHECK(client.handshake.need() == Need::kDone);
  auto old = Client::ready({.tls = TlsMode::kOffer});
  old.exports["disk"].needs_tls = true;
  old.say_option(Option::kExportName, "disk");
  CHECK(old.handshake.need() == Need::kClose);
}

TEST_CASE("handshake: a malformed INFO or GO is refused, and the next option understood") {
  const std::string good = info_data("disk", {0});
  const std::string count_wrong = good.substr(0, 8) + std::string("\0\2\0\0", 4);
  for (const std::string& data :
       {std::string(), good.substr(0, 3), good.substr(0, 6), good.substr(0, 8), good.substr(0, 9),
        good.substr(0, 11), good + "x", good + good, count_wrong,
        std::string("\xff\xff\xff\xff", 4) + good.substr(4), info_data(std::string(4097, 'n')),
        info_data(std::string_view("di\0sk", 5))}) {
    for (const Option option : {Option::kInfo, Option::kGo}) {
      auto client = Client::ready();
      CHECK(client.result_of(option, data) == OptionReply::kErrInvalid);
      CHECK(client.handshake.need() == Need::kInput);
      CHECK(client.result_of(Option::kStructuredReply) == OptionReply::kAck);
    }
  }
}

TEST_CASE("handshake: INFO tells what was asked for once each, and does not begin transmission") {
  auto client = Client::ready();
  client.say_option(Option::kInfo, info_data("disk", {3, 1, 2, 3, 1, 2, 0, 500}));
  const auto answers = client.answers();
  REQUIRE(answers.size() == 5);
  CHECK(answers[0].payload == export_info(4096, kFlags));
  CHECK(answers[1].payload == std::string("\0\1disk", 6));
  CHECK(answers[2].payload == std::string("\0\2a disk", 8));
  CHECK(answers[3].payload == wire([](WireBuffer& out) {
          out.put<uint16_t>(3);
          out.put<uint32_t>(1);
          out.put<uint32_t>(4096);
          out.put<uint32_t>(32 << 20);
        }));
  CHECK(answers[4].type == OptionReply::kAck);
  CHECK(client.handshake.need() == Need::kInput);
}

TEST_CASE("handshake: what one INFO asked for is not told to the next") {
  auto client = Client::ready();
  client.say_option(Option::kInfo, info_data("disk", {1, 2, 3}));
  (void)client.answers();
  client.say_option(Option::kGo, info_data("disk"));
  CHECK(client.answers().size() == 2);
  CHECK(client.handshake.need() == Need::kDone);
}

TEST_CASE("handshake: no such export and an image that cannot be served are told apart") {
  auto client = Client::ready();
  client.broken = "damaged";
  for (const Option option : {Option::kInfo, Option::kGo}) {
    CHECK(client.result_of(option, info_data("none")) == OptionReply::kErrUnknown);
    CHECK(client.result_of(option, info_data("damaged")) == OptionReply::kErrPlatform);
  }
  CHECK(client.result_of(Option::kListMetaContext, meta_data("none", {})) ==
        OptionReply::kErrUnknown);
  client.say_option(Option::kGo, info_data("disk"));
  CHECK(client.handshake.need() == Need::kDone);
}

TEST_CASE("handshake: DF and several connections are offered only where they hold") {
  for (const bool multi : {false, true}) {
    auto client = Client::ready({.allocation_depth = false, .multi_conn = multi});
    CHECK(client.result_of(Option::kStructuredReply) == OptionReply::kAck);
    client.say_option(Option::kGo, info_data("disk"));
    const uint16_t more = multi ? nbd::kCanMultiConn : 0;
    CHECK(client.answers()[0].payload == export_info(4096, kFlags | nbd::kSendDf | more));
  }
}

}  // namespace
}  // namespace underlay
