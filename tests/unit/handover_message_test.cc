#include "server/handover_message.h"

#include <doctest/doctest.h>

#include "server/limits.h"

namespace underlay::handover {
namespace {

SessionState session() {
  SessionState state;
  state.content = {.name = "a disk", .size = 1ull << 40, .fingerprint = 0x0102030405060708};
  state.negotiated = {
      .structured = true, .extended = true, .allocation = true, .allocation_depth = true};
  state.input.assign(limits::kReceiveBuffer, std::byte{0x5a});
  state.payload_left = 999;
  state.payload_request = {.command = nbd::Command::kWrite,
                           .flags = nbd::kCommandPayloadLength,
                           .cookie = ~uint64_t{0},
                           .offset = 1ull << 33,
                           .length = 1000};
  state.payload_error = nbd::WireError::kPerm;
  return state;
}

std::vector<Message> one_of_each() {
  return {Hello{},
          ExportInUse{{.name = std::string(nbd::kMaxString, 'n'), .size = 5, .fingerprint = 6}},
          ExportsEnd{},
          Ready{},
          Listener{.whom = Listener::For::kSuccessors,
                   .tcp = true,
                   .address = "[::1]:10809",
                   .path = "/run/s",
                   .identity = {.device = 7, .inode = 1ull << 40}},
          Waiting{},
          session(),
          Inventory{.listeners = 1, .waiting = 2, .sessions = 3},
          Taken{{.device = 8, .inode = 9}},
          Released{},
          Refused{"because"}};
}

Error refusal(ByteSpan packet) {
  const auto message = decode(packet);
  REQUIRE_FALSE(message);
  return message.error();
}

// A packet with one byte changed.
std::vector<std::byte> patched(std::vector<std::byte> packet, size_t at, uint8_t value) {
  packet.at(at) = std::byte{value};
  return packet;
}

}  // namespace

TEST_CASE("handover: every message comes back as it was sent") {
  const std::vector<Message> messages = one_of_each();
  REQUIRE(messages.size() == std::variant_size_v<Message>);
  for (size_t i = 0; i < messages.size(); ++i) {
    INFO(i);
    const std::vector<std::byte> packet = encode(messages[i]);
    CHECK(packet.size() <= kMaxMessage);
    const auto message = decode(packet);
    REQUIRE(message);
    CHECK(message->index() == i);
    CHECK(encode(*message) == packet);
  }
}

TEST_CASE("handover: a session keeps all that it is") {
  const SessionState sent = session();
  const auto message = decode(encode(sent));
  REQUIRE(message);
  const auto& state = std::get<SessionState>(*message);
  CHECK(state.content == sent.content);
  CHECK(state.negotiated.structured);
  CHECK(state.negotiated.extended);
  CHECK(state.negotiated.allocation);
  CHECK(state.negotiated.allocation_depth);
  CHECK(state.input == sent.input);
  CHECK(state.payload_left == 999);
  CHECK(state.payload_request.cookie == ~uint64_t{0});
  CHECK(state.payload_request.length == 1000);
  CHECK(state.payload_error == nbd::WireError::kPerm);
}

TEST_CASE("handover: a session without dirty bitmaps is what it was before there were any") {
  const std::vector<std::byte> before = encode(session());
  SessionState state = session();
  state.negotiated.dirty_bitmaps = 0x80000001;
  const std::vector<std::byte> packet = encode(state);
  CHECK(packet.size() == before.size() + 4);
  const auto message = decode(packet);
  REQUIRE(message);
  CHECK(std::get<SessionState>(*message).negotiated.dirty_bitmaps == 0x80000001);
  CHECK(std::get<SessionState>(*decode(before)).negotiated.dirty_bitmaps == 0);
}

TEST_CASE("handover: a message that is cut or too long is malformed") {
  for (const Message& message : one_of_each()) {
    std::vector<std::byte> packet = encode(message);
    INFO(message.index());
    for (size_t size = 0; size < packet.size(); size += 1 + packet.size() / 64) {
      CHECK(refusal(ByteSpan(packet).first(size)).kind == ErrorKind::kMalformed);
    }
    packet.push_back(std::byte{0});
    CHECK(refusal(packet).kind == ErrorKind::kMalformed);
  }
  CHECK(refusal(std::vector<std::byte>(kMaxMessage + 1)).kind == ErrorKind::kMalformed);
}

TEST_CASE("handover: another version is refused by its number, but its refusal is understood") {
  const Error error = refusal(patched(encode(Hello{}), 5, 2));
  CHECK(error.kind == ErrorKind::kUnsupported);
  CHECK(error.message.find("version 2") != std::string::npos);
  std::vector<std::byte> packet = patched(encode(Refused{"no"}), 5, 2);
  packet.push_back(std::byte{1});  // a field of that version
  const auto message = decode(packet);
  REQUIRE(message);
  CHECK(std::get<Refused>(*message).reason == "no");
}

TEST_CASE("handover: magic and type must be known") {
  CHECK(refusal(patched(encode(Hello{}), 0, 0)).kind == ErrorKind::kMalformed);
  CHECK(refusal(patched(encode(Hello{}), 7, 11)).kind == ErrorKind::kMalformed);
  CHECK(refusal(patched(encode(Hello{}), 6, 0xff)).kind == ErrorKind::kMalformed);
}

TEST_CASE("handover: a session that cannot be is malformed") {
  const auto refused = [](const auto& change) {
    SessionState state = session();
    change(state);
    return !decode(encode(state));
  };
  CHECK_FALSE(refused([](SessionState&) {}));
  CHECK(refused([](SessionState& state) { state.negotiated.structured = false; }));
  CHECK(refused([](SessionState& state) { state.payload_left = 1001; }));
  CHECK(refused([](SessionState& state) { state.payload_error = nbd::WireError::kNone; }));
  CHECK(refused([](SessionState& state) { state.payload_error = nbd::WireError{77}; }));
  CHECK(refused([](SessionState& state) { state.content.name = std::string("a\0b", 3); }));
  CHECK(refused([](SessionState& state) { state.input.push_back(std::byte{}); }));
  CHECK(refused([](SessionState& state) { state.content.name.assign(nbd::kMaxString + 1, 'n'); }));
}

TEST_CASE("handover: a reason that is too long is cut") {
  const auto message = decode(encode(Refused{std::string(5000, 'x')}));
  REQUIRE(message);
  CHECK(std::get<Refused>(*message).reason.size() == kMaxReason);
}

}  // namespace underlay::handover
