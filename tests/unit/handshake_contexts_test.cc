// Metadata contexts in the handshake (doc/proto.md, "Metadata querying").
#include <doctest/doctest.h>

#include "server/limits.h"
#include "tests/support/handshake_client.h"

namespace underlay {
namespace {

using nbd::Option;
using nbd::OptionReply;
using Client = HandshakeClient;

Client structured(HandshakeOffer offer = {}) {
  auto client = Client::ready(offer);
  CHECK(client.result_of(Option::kStructuredReply) == OptionReply::kAck);
  return client;
}

// The contexts that an option is answered with, as "id name"; the last answer must be ACK.
std::vector<std::string> contexts(Client& client, Option option, const std::string& data) {
  client.say_option(option, data);
  auto answers = client.answers();
  REQUIRE(!answers.empty());
  CHECK(answers.back().type == OptionReply::kAck);
  answers.pop_back();
  std::vector<std::string> names;
  for (const OptionAnswer& answer : answers) {
    CHECK(answer.type == OptionReply::kMetaContext);
    REQUIRE(answer.payload.size() > 4);
    const auto id = load_be<uint32_t>(as_bytes(answer.payload), 0);
    names.push_back(std::to_string(id) + " " + answer.payload.substr(4));
  }
  return names;
}

using Names = std::vector<std::string>;

TEST_CASE("contexts: SET needs structured replies, LIST does not") {
  auto client = Client::ready();
  CHECK(client.result_of(Option::kSetMetaContext, meta_data("disk", {"base:allocation"})) ==
        OptionReply::kErrInvalid);
  CHECK(contexts(client, Option::kListMetaContext, meta_data("disk", {"base:allocation"})) ==
        Names{"0 base:allocation"});
  CHECK(!client.handshake.negotiated().allocation);
}

TEST_CASE("contexts: LIST without queries, or of a namespace, tells what is offered") {
  auto plain = Client::ready();
  auto deep = Client::ready({.allocation_depth = true, .multi_conn = false});
  const Names both{"0 base:allocation", "0 qemu:allocation-depth"};
  const auto list = [](Client& client, std::vector<std::string> queries) {
    return contexts(client, Option::kListMetaContext, meta_data("disk", queries));
  };
  CHECK(list(plain, {}) == Names{"0 base:allocation"});
  CHECK(list(deep, {}) == both);
  CHECK(list(deep, {"base:", "qemu:"}) == both);
  CHECK(list(deep, {"qemu:"}) == Names{"0 qemu:allocation-depth"});
  CHECK(list(plain, {"qemu:"}).empty());
  CHECK(list(deep, {"base:other", "base", "", "x:allocation"}).empty());
}

TEST_CASE("contexts: SET selects exact names that are offered, each once") {
  auto client = structured({.allocation_depth = true, .multi_conn = false});
  CHECK(contexts(client, Option::kSetMetaContext,
                 meta_data("disk", {"qemu:allocation-depth", "base:allocation", "base:allocation",
                                    "qemu:allocation-depth", "other:thing"})) ==
        Names{"1 base:allocation", "2 qemu:allocation-depth"});
  CHECK(client.handshake.negotiated().allocation);
  CHECK(client.handshake.negotiated().allocation_depth);
}

// With an export "disk" that has the bitmaps "b0" and "b1".
Client with_bitmaps() {
  auto client = structured();
  client.exports["disk"].dirty_bitmaps = {"b0", "b1"};
  return client;
}

TEST_CASE("contexts: LIST tells an export's dirty bitmaps, all of them or those that are named") {
  auto client = with_bitmaps();
  const auto list = [&](const std::string& name, std::vector<std::string> queries) {
    return contexts(client, Option::kListMetaContext, meta_data(name, queries));
  };
  const Names both{"0 qemu:dirty-bitmap:b0", "0 qemu:dirty-bitmap:b1"};
  CHECK(list("disk", {"qemu:"}) == both);
  CHECK(list("disk", {"qemu:dirty-bitmap:"}) == both);
  CHECK(list("disk", {}) == Names{"0 base:allocation", both[0], both[1]});
  CHECK(list("disk", {"qemu:dirty-bitmap:b1"}) == Names{both[1]});
  CHECK(list("disk", {"qemu:dirty-bitmap:b", "qemu:dirty-bitmap:b01", "qemu:dirty-bitmap",
                      "dirty-bitmap:b0"})
            .empty());
  CHECK(list("", {"qemu:", "qemu:dirty-bitmap:b0"}).empty());
}

TEST_CASE("contexts: SET selects dirty bitmaps by their exact names, and each has its own id") {
  auto client = with_bitmaps();
  const auto set = [&](std::vector<std::string> queries) {
    return contexts(client, Option::kSetMetaContext, meta_data("disk", queries));
  };
  CHECK(set({"qemu:dirty-bitmap:b1", "base:allocation", "qemu:dirty-bitmap:b1"}) ==
        Names{"1 base:allocation", "4 qemu:dirty-bitmap:b1"});
  CHECK(client.handshake.negotiated().dirty_bitmaps == 0b10);
  CHECK(set({"qemu:", "qemu:dirty-bitmap:", "qemu:dirty-bitmap:b2"}).empty());
  CHECK(client.handshake.negotiated().dirty_bitmaps == 0);
  CHECK(set({"qemu:dirty-bitmap:b0", "qemu:dirty-bitmap:b1"}).size() == 2);
  CHECK(client.handshake.negotiated().dirty_bitmaps == 0b11);
  client.say_option(Option::kGo, info_data(""));
  CHECK(client.handshake.need() == Handshake::Need::kDone);
  CHECK(client.handshake.negotiated().dirty_bitmaps == 0);
}

TEST_CASE("contexts: SET of a bare namespace, or of nothing, selects nothing") {
  auto client = structured();
  for (const std::vector<std::string>& queries :
       {std::vector<std::string>{"base:"}, {}, {"qemu:allocation-depth"}, {"base:allocatio"}}) {
    CHECK(contexts(client, Option::kSetMetaContext, meta_data("disk", queries)).empty());
    CHECK(!client.handshake.negotiated().allocation);
    CHECK(!client.handshake.negotiated().allocation_depth);
  }
}

TEST_CASE("contexts: every SET replaces the set, also one that fails") {
  const std::string good = meta_data("disk", {"base:allocation"});
  std::string nul = good;
  nul[9] = '\0';
  for (const std::string& data :
       {meta_data("disk", {}), meta_data("none", {"base:allocation"}), good.substr(0, 11),
        good.substr(0, good.size() - 1), good + "x", std::string(),
        std::string("\0\0\0\0\xff\xff\xff\xff", 8), meta_data(std::string(4097, 'n'), {}),
        meta_data("disk", {std::string(4097, 'q')}), std::string(limits::kStoredOption + 1, 'x')}) {
    auto client = structured();
    CHECK(contexts(client, Option::kSetMetaContext, good).size() == 1);
    CHECK(client.handshake.negotiated().allocation);
    client.say_option(Option::kSetMetaContext, data);
    CHECK(client.answers().size() == 1);
    CHECK(!client.handshake.negotiated().allocation);
    client.say_option(Option::kGo, info_data("disk"));
    CHECK(!client.handshake.negotiated().allocation);
  }
}

TEST_CASE("contexts: LIST leaves the selected set alone, also when it fails") {
  auto client = structured();
  const std::string good = meta_data("disk", {"base:allocation"});
  CHECK(contexts(client, Option::kSetMetaContext, good).size() == 1);
  CHECK(contexts(client, Option::kListMetaContext, meta_data("disk", {"qemu:"})).empty());
  CHECK(client.result_of(Option::kListMetaContext, good + "x") == OptionReply::kErrInvalid);
  client.say_option(Option::kGo, info_data("disk"));
  CHECK(client.handshake.negotiated().allocation);
}

TEST_CASE("contexts: they are selected for one export, and lost with another") {
  auto client = structured();
  CHECK(contexts(client, Option::kSetMetaContext, meta_data("disk", {"base:allocation"})).size() ==
        1);
  client.say_option(Option::kGo, info_data(""));
  CHECK(client.handshake.need() == Handshake::Need::kDone);
  CHECK(!client.handshake.negotiated().allocation);
}

}  // namespace
}  // namespace underlay
