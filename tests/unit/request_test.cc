#include "server/request.h"

#include <doctest/doctest.h>

#include "server/wire_buffer.h"

namespace underlay {
namespace {

using nbd::Command;
using nbd::WireError;

constexpr uint64_t kSize = 64ull << 20;
constexpr uint64_t kTop = ~uint64_t{0};

Negotiated compact() { return {}; }
Negotiated structured() {
  Negotiated negotiated;
  negotiated.structured = true;
  return negotiated;
}
Negotiated extended(bool allocation = true) {
  Negotiated negotiated = structured();
  negotiated.extended = true;
  negotiated.allocation = allocation;
  return negotiated;
}

Request request(Command command, uint64_t offset, uint64_t length, uint16_t flags = 0) {
  return {.command = command, .flags = flags, .cookie = 7, .offset = offset, .length = length};
}

TEST_CASE("request: compact and extended headers carry the same fields") {
  WireBuffer compact_bytes;
  compact_bytes.put<uint32_t>(0x25609513);
  compact_bytes.put<uint16_t>(0x0102);
  compact_bytes.put<uint16_t>(7);
  compact_bytes.put<uint64_t>(0x1112131415161718);
  compact_bytes.put<uint64_t>(0x2122232425262728);
  WireBuffer extended_bytes;
  extended_bytes.put<uint32_t>(0x21e41c71);
  extended_bytes.put_text(as_text(compact_bytes.bytes().subspan(4)));
  compact_bytes.put<uint32_t>(0xf1f2f3f4);
  extended_bytes.put<uint64_t>(0xf1f2f3f4f5f6f7f8);
  CHECK(request_bytes(compact()) == compact_bytes.bytes().size());
  CHECK(request_bytes(extended()) == extended_bytes.bytes().size());

  const Request small = parse_request(compact_bytes.bytes(), compact());
  const Request large = parse_request(extended_bytes.bytes(), extended());
  for (const Request& parsed : {small, large}) {
    CHECK(parsed.flags == 0x0102);
    CHECK(parsed.command == Command::kBlockStatus);
    CHECK(parsed.cookie == 0x1112131415161718);
    CHECK(parsed.offset == 0x2122232425262728);
  }
  CHECK(small.length == 0xf1f2f3f4);
  CHECK(large.length == 0xf1f2f3f4f5f6f7f8);

  WireBuffer small_again;
  put_request(small_again, small, compact());
  CHECK(as_text(small_again.bytes()) == as_text(compact_bytes.bytes()));
  WireBuffer large_again;
  put_request(large_again, large, extended());
  CHECK(as_text(large_again.bytes()) == as_text(extended_bytes.bytes()));
}

TEST_CASE("request: a stream out of step is seen by its first wrong byte") {
  const std::string magic("\x25\x60\x95\x13", 4);
  const std::string extended_magic("\x21\xe4\x1c\x71", 4);
  for (size_t known = 0; known <= 4; ++known) {
    CHECK(starts_request(as_bytes(magic).first(known), compact()));
    CHECK(starts_request(as_bytes(extended_magic).first(known), extended()));
    if (known == 0) continue;
    std::string wrong = magic.substr(0, known);
    wrong.back() = static_cast<char>(wrong.back() ^ 1);
    CHECK(!starts_request(as_bytes(wrong), compact()));
    CHECK(!starts_request(as_bytes(extended_magic).first(known), structured()));
    CHECK(!starts_request(as_bytes(magic).first(known), extended()));
  }
}

TEST_CASE("request: WRITE has a payload always, others only where extended headers say so") {
  const uint64_t big = kTop - 5;
  CHECK(payload_bytes(request(Command::kWrite, 0, 512), compact()) == 512);
  CHECK(payload_bytes(request(Command::kWrite, 0, big), extended()) == big);
  for (const unsigned number : {0u, 2u, 3u, 4u, 5u, 6u, 7u, 8u, 9u, 65535u}) {
    const Request stated =
        request(static_cast<Command>(number), 0, big, nbd::kCommandPayloadLength);
    CHECK(payload_bytes(stated, extended()) == big);
    CHECK(payload_bytes(stated, structured()) == 0);
    CHECK(payload_bytes(request(static_cast<Command>(number), 0, big), extended()) == 0);
  }
}

TEST_CASE("request: what is read must lie within the export, without wrapping") {
  struct Row {
    uint64_t offset, length;
    bool within;
  };
  for (const Row& row : {Row{0, 1, true},
                         {kSize - 1, 1, true},
                         {kSize, 0, true},
                         {kSize, 1, false},
                         {kSize - 1, 2, false},
                         {kSize + 1, 0, false},
                         {kTop, 1, false},
                         {kTop, 2, false},
                         {kTop - 511, 512, false},
                         {512, kTop - 511, false},
                         {512, kTop - 510, false},
                         {1, kTop, false},
                         {kTop, kTop, false},
                         {0, kTop, false},
                         {1ull << 63, 1ull << 63, false}}) {
    CAPTURE(row.offset);
    CAPTURE(row.length);
    const WireError wanted = row.within ? WireError::kNone : WireError::kInvalid;
    for (const Negotiated& negotiated : {compact(), extended()}) {
      for (const Command command : {Command::kRead, Command::kCache}) {
        CHECK(validate_request(request(command, row.offset, row.length), negotiated, kSize) ==
              wanted);
      }
    }
    const bool described = row.within && row.length > 0;
    CHECK((validate_request(request(Command::kBlockStatus, row.offset, row.length), extended(),
                            kSize) == WireError::kNone) == described);
  }
}

TEST_CASE("request: a READ has at most 32 MiB; CACHE and BLOCK_STATUS may cover the export") {
  for (const Negotiated& negotiated : {compact(), extended()}) {
    const auto verdict = [&](Command command, uint64_t length) {
      return validate_request(request(command, 0, length), negotiated, kSize);
    };
    CHECK(verdict(Command::kRead, nbd::kMaxPayload) == WireError::kNone);
    CHECK(verdict(Command::kRead, nbd::kMaxPayload + 1) == WireError::kInvalid);
    CHECK(verdict(Command::kCache, kSize) == WireError::kNone);
    if (negotiated.allocation) CHECK(verdict(Command::kBlockStatus, kSize) == WireError::kNone);
  }
}

TEST_CASE("request: what would write is not permitted, whatever else is wrong with it") {
  for (const Negotiated& negotiated : {compact(), extended()}) {
    for (const uint64_t offset : {uint64_t{0}, kTop}) {
      CHECK(validate_request(request(Command::kWrite, offset, kTop, 0xffff), negotiated, kSize) ==
            WireError::kPerm);
      for (const Command command : {Command::kTrim, Command::kWriteZeroes}) {
        CHECK(validate_request(request(command, offset, kTop), negotiated, kSize) ==
              WireError::kPerm);
      }
    }
  }
}

TEST_CASE("request: BLOCK_STATUS needs a context") {
  const Request status = request(Command::kBlockStatus, 0, 512);
  Negotiated depth = structured();
  depth.allocation_depth = true;
  CHECK(validate_request(status, structured(), kSize) == WireError::kInvalid);
  CHECK(validate_request(status, extended(false), kSize) == WireError::kInvalid);
  CHECK(validate_request(status, depth, kSize) == WireError::kNone);
  Negotiated bitmap = structured();
  bitmap.dirty_bitmaps = 2;
  CHECK(validate_request(status, bitmap, kSize) == WireError::kNone);
}

TEST_CASE("request: each command takes its own flags, and no others") {
  struct Row {
    Command command;
    uint16_t allowed;  // beside FUA
    WireError fine;
  };
  for (const Row& row :
       {Row{Command::kRead, nbd::kCommandDf, WireError::kNone},
        {Command::kFlush, 0, WireError::kNone},
        {Command::kTrim, 0, WireError::kPerm},
        {Command::kCache, 0, WireError::kNone},
        {Command::kWriteZeroes, nbd::kCommandNoHole | nbd::kCommandFastZero, WireError::kPerm},
        {Command::kBlockStatus, nbd::kCommandReqOne, WireError::kNone}}) {
    for (unsigned bit = 0; bit < 16; ++bit) {
      const auto flag = static_cast<uint16_t>(1u << bit);
      const bool allowed = ((row.allowed | nbd::kCommandFua) & flag) != 0;
      CAPTURE(static_cast<int>(row.command));
      CAPTURE(bit);
      CHECK(validate_request(request(row.command, 0, 512, flag), extended(), kSize) ==
            (allowed ? row.fine : WireError::kInvalid));
    }
  }
  CHECK(validate_request(request(Command::kRead, 0, 512, nbd::kCommandDf), compact(), kSize) ==
        WireError::kInvalid);
}

TEST_CASE("request: FLUSH takes any range; unknown commands are invalid") {
  CHECK(validate_request(request(Command::kFlush, kTop, kTop), compact(), 0) == WireError::kNone);
  for (const unsigned number : {8u, 9u, 1000u, 65535u}) {
    CHECK(validate_request(request(static_cast<Command>(number), 0, 0), extended(), kSize) ==
          WireError::kInvalid);
  }
}

TEST_CASE("request: an export of no bytes has nothing to read") {
  CHECK(validate_request(request(Command::kRead, 0, 1), compact(), 0) == WireError::kInvalid);
  CHECK(validate_request(request(Command::kRead, 0, 0), compact(), 0) == WireError::kNone);
}

}  // namespace
}  // namespace underlay
