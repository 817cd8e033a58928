// The bytes of every reply, as doc/proto.md lays them out.
#include "server/reply.h"

#include <doctest/doctest.h>

#include <array>

#include "server/wire_buffer.h"

namespace underlay {
namespace {

constexpr uint64_t kCookie = 0x0102030405060708;

struct Forms {
  Forms() {
    structured.structured = true;
    extended.structured = extended.extended = true;
  }
  Negotiated simple;
  Negotiated structured;
  Negotiated extended;
  Request request{.command = nbd::Command::kRead,
                  .flags = 0,
                  .cookie = kCookie,
                  .offset = 0x1000,
                  .length = 0x3000};

  // What `put` writes for a form; nothing beyond it may be touched.
  template <class Put>
  std::string bytes(const Negotiated& form, const Put& put) const {
    std::array<std::byte, 2048> out;
    out.fill(std::byte{0xee});
    const size_t size = put(ReplyWriter(form, request), MutableByteSpan(out));
    REQUIRE(size < out.size());
    CHECK(out[size] == std::byte{0xee});
    return std::string(as_text(ByteSpan(out).first(size)));
  }
};

// A chunk's head; `payload` bytes follow.
WireBuffer chunk(bool extended, uint16_t flags, uint16_t type, uint64_t payload) {
  WireBuffer out;
  out.put<uint32_t>(extended ? 0x6e8a278c : 0x668e33ef);
  out.put<uint16_t>(flags);
  out.put<uint16_t>(type);
  out.put<uint64_t>(kCookie);
  if (extended) out.put<uint64_t>(0x1000);
  if (extended) {
    out.put<uint64_t>(payload);
  } else {
    out.put<uint32_t>(static_cast<uint32_t>(payload));
  }
  return out;
}
std::string simple(uint32_t error) {
  WireBuffer out;
  out.put<uint32_t>(0x67446698);
  out.put<uint32_t>(error);
  out.put<uint64_t>(kCookie);
  return std::string(as_text(out.bytes()));
}
std::string text(const WireBuffer& buffer) { return std::string(as_text(buffer.bytes())); }

TEST_CASE("reply: success is a simple reply, or one chunk without payload") {
  const Forms forms;
  const auto put = [](const ReplyWriter& writer, MutableByteSpan out) {
    return writer.put_success(out);
  };
  CHECK(forms.bytes(forms.simple, put) == simple(0));
  CHECK(forms.bytes(forms.structured, put) == text(chunk(false, 1, 0, 0)));
  CHECK(forms.bytes(forms.extended, put) == text(chunk(true, 1, 0, 0)));
}

TEST_CASE("reply: an error has its number, and a message where there is room for one") {
  const Forms forms;
  const auto put = [](const ReplyWriter& writer, MutableByteSpan out) {
    return writer.put_error(out, nbd::WireError::kIo, "broken");
  };
  CHECK(forms.bytes(forms.simple, put) == simple(5));
  for (const bool extended : {false, true}) {
    WireBuffer wanted = chunk(extended, 1, 0x8001, 12);
    wanted.put<uint32_t>(5);
    wanted.put<uint16_t>(6);
    wanted.put_text("broken");
    CHECK(forms.bytes(extended ? forms.extended : forms.structured, put) == text(wanted));
  }
}

TEST_CASE("reply: a long error message is cut, and says its true length") {
  const Forms forms;
  for (const size_t length : {441u, 442u, 443u, 1000u, 100'000u}) {
    const std::string message(length, 'm');
    const auto put = [&](const ReplyWriter& writer, MutableByteSpan out) {
      return writer.put_error(out.first(ReplyWriter::kMaxError), nbd::WireError::kPerm, message);
    };
    for (const bool extended : {false, true}) {
      const std::string got = forms.bytes(extended ? forms.extended : forms.structured, put);
      const size_t kept = std::min<size_t>(length, 442);
      WireBuffer wanted = chunk(extended, 1, 0x8001, 6 + kept);
      wanted.put<uint32_t>(1);
      wanted.put<uint16_t>(static_cast<uint16_t>(kept));
      wanted.put_text(message.substr(0, kept));
      CHECK(got == text(wanted));
      CHECK(got.size() <= ReplyWriter::kMaxError);
    }
  }
}

TEST_CASE("reply: data follows a simple header, or a chunk that says where it lies") {
  const Forms forms;
  for (const bool last : {false, true}) {
    const auto put = [&](const ReplyWriter& writer, MutableByteSpan out) {
      return writer.put_data_header(out, 0x1800, 0x200, last);
    };
    CHECK(forms.bytes(forms.simple, put) == simple(0));
    for (const bool extended : {false, true}) {
      WireBuffer wanted = chunk(extended, last ? 1 : 0, 1, 8 + 0x200);
      wanted.put<uint64_t>(0x1800);
      CHECK(forms.bytes(extended ? forms.extended : forms.structured, put) == text(wanted));
    }
  }
}

TEST_CASE("reply: a hole says where it lies and how long it is") {
  const Forms forms;
  for (const bool last : {false, true}) {
    const auto put = [&](const ReplyWriter& writer, MutableByteSpan out) {
      return writer.put_hole(out, 0x1800, nbd::kMaxPayload, last);
    };
    for (const bool extended : {false, true}) {
      WireBuffer wanted = chunk(extended, last ? 1 : 0, 2, 12);
      wanted.put<uint64_t>(0x1800);
      wanted.put<uint32_t>(32 << 20);
      CHECK(forms.bytes(extended ? forms.extended : forms.structured, put) == text(wanted));
    }
  }
}

TEST_CASE("reply: block status has 32-bit extents, with extended headers 64-bit ones") {
  Forms forms;
  const std::vector<StatusExtent> extents = {{.length = 0xfffffe00, .flags = 3},
                                             {.length = 512, .flags = 0}};
  const auto put = [&](const ReplyWriter& writer, MutableByteSpan out) {
    return writer.put_status(out, 2, extents, false);
  };
  WireBuffer compact = chunk(false, 0, 5, 4 + 2 * 8);
  compact.put<uint32_t>(2);
  for (const uint32_t field : {0xfffffe00u, 3u, 512u, 0u}) compact.put<uint32_t>(field);
  CHECK(forms.bytes(forms.structured, put) == text(compact));

  WireBuffer extended = chunk(true, 0, 6, 8 + 2 * 16);
  extended.put<uint32_t>(2);
  extended.put<uint32_t>(2);
  for (const uint64_t field : {0xfffffe00ull, 3ull, 512ull, 0ull}) extended.put<uint64_t>(field);
  CHECK(forms.bytes(forms.extended, put) == text(extended));

  const std::vector<StatusExtent> huge = {{.length = 1ull << 60, .flags = 1ull << 40}};
  const std::string wide =
      forms.bytes(forms.extended, [&](const ReplyWriter& writer, MutableByteSpan out) {
        return writer.put_status(out, 1, huge, true);
      });
  CHECK(load_be<uint64_t>(as_bytes(wide), 40) == 1ull << 60);
  CHECK(load_be<uint64_t>(as_bytes(wide), 48) == 1ull << 40);
}

TEST_CASE("reply: no header is longer than what callers reserve for it") {
  const Forms forms;
  for (const Negotiated& form : {forms.simple, forms.structured, forms.extended}) {
    const ReplyWriter writer(form, forms.request);
    std::array<std::byte, ReplyWriter::kMaxHeader> out;
    CHECK(writer.put_success(out) <= out.size());
    CHECK(writer.put_data_header(out, ~0ull, ~0ull - 8, true) <= out.size());
    if (!writer.structured()) continue;
    CHECK(writer.put_hole(out, ~0ull, 1, true) <= out.size());
    CHECK(writer.put_status(out, 1, {}, true) <= out.size());
  }
}

}  // namespace
}  // namespace underlay
