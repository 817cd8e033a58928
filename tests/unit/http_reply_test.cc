#include "io/http/http_reply.h"

#include <doctest/doctest.h>

namespace underlay {
namespace {

const ObjectPin kPin{.size = 1000, .etag = "\"one\"", .last_modified = "yesterday"};

ReplyHead part(const char* range, const char* etag = "\"one\"") {
  return {.status = 206,
          .content_range = range,
          .content_length = {},
          .etag = etag,
          .last_modified = "yesterday",
          .is_fresh = false};
}

ReplyHead status(long code) {
  ReplyHead head;
  head.status = code;
  return head;
}

ReplyMeaning meaning(const ReplyHead& head, const ObjectPin* pin = &kPin) {
  return judge_reply(head, 100, 199, pin).meaning;
}

TEST_CASE("content range: what is sent, and of how many bytes") {
  using Bytes = ContentRange::Bytes;
  CHECK(parse_content_range("bytes 0-99/1000") ==
        ContentRange{.bytes = Bytes{.first = 0, .last = 99}, .size = 1000});
  CHECK(parse_content_range("bytes 999-999/1000") ==
        ContentRange{.bytes = Bytes{.first = 999, .last = 999}, .size = 1000});
  CHECK(parse_content_range("bytes 5-9/*") ==
        ContentRange{.bytes = Bytes{.first = 5, .last = 9}, .size = std::nullopt});
  CHECK(parse_content_range("bytes */0") == ContentRange{.bytes = std::nullopt, .size = 0});
  CHECK(parse_content_range("bytes 0-18446744073709551613/18446744073709551614"));
}

TEST_CASE("content range: what makes no sense is none") {
  for (const char* text :
       {"", "bytes", "bytes ", "bytes 0-99", "bytes 0-99/", "bytes 9-8/100", "bytes 0-100/100",
        "bytes -5/100", "bytes 0-99/100 ", "bytes 0 - 9/100", "items 0-9/100", "bytes 0-9/+100",
        "bytes 0-18446744073709551616/18446744073709551617", "bytes 0x0-9/100", "bytes 0-9/1e3"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_content_range(text));
  }
}

TEST_CASE("http reply: the range that was asked for is taken") {
  const JudgedReply reply = judge_reply(part("bytes 100-199/1000"), 100, 199, &kPin);
  CHECK(reply.meaning == ReplyMeaning::kBytes);
  CHECK(reply.length == 100);
  // At opening, an object may be shorter.
  const JudgedReply short_one = judge_reply(part("bytes 0-49/50"), 0, 65535, nullptr);
  CHECK(short_one.meaning == ReplyMeaning::kBytes);
  CHECK(short_one.length == 50);
  CHECK(short_one.pin.size == 50);
  CHECK(short_one.pin.etag == "\"one\"");
}

TEST_CASE("http reply: another part, or one of unknown size, is refused") {
  for (const char* range : {"bytes 100-198/1000", "bytes 101-199/1000", "bytes 0-99/1000",
                            "bytes 100-199/*", "bytes */1000", ""}) {
    CAPTURE(range);
    CHECK(meaning(part(range)) == ReplyMeaning::kFailed);
  }
}

TEST_CASE("http reply: another version is a change") {
  CHECK(meaning(part("bytes 100-199/1001")) == ReplyMeaning::kChanged);
  CHECK(meaning(part("bytes 100-199/1000", "\"two\"")) == ReplyMeaning::kChanged);
  CHECK(meaning(part("bytes 100-199/1000", "")) == ReplyMeaning::kChanged);
  ObjectPin untagged = kPin;
  untagged.etag.clear();
  CHECK(meaning(part("bytes 100-199/1000", ""), &untagged) == ReplyMeaning::kBytes);
  untagged.last_modified = "today";
  CHECK(meaning(part("bytes 100-199/1000", ""), &untagged) == ReplyMeaning::kChanged);
  for (const long code : {404L, 410L, 412L, 416L}) {
    CAPTURE(code);
    CHECK(meaning(status(code)) == ReplyMeaning::kChanged);
  }
}

TEST_CASE("http reply: statuses at opening") {
  const auto error = [](long code) { return judge_reply(status(code), 0, 9, nullptr).error.kind; };
  CHECK(error(404) == ErrorKind::kNotFound);
  CHECK(error(403) == ErrorKind::kDenied);
  CHECK(error(200) == ErrorKind::kUnsupported);
  CHECK(meaning(status(503), nullptr) == ReplyMeaning::kLater);
  CHECK(meaning(status(429), nullptr) == ReplyMeaning::kLater);
  CHECK(meaning(status(403), nullptr) == ReplyMeaning::kKeys);
  CHECK(meaning(status(501), nullptr) == ReplyMeaning::kFailed);
  CHECK(meaning(status(416), nullptr) == ReplyMeaning::kFailed);
  ReplyHead empty = status(416);
  empty.content_range = "bytes */0";
  CHECK(meaning(empty, nullptr) == ReplyMeaning::kEmpty);
  empty = status(200);
  empty.content_length = "0";
  CHECK(meaning(empty, nullptr) == ReplyMeaning::kEmpty);
  CHECK(meaning(empty) == ReplyMeaning::kFailed);
}

TEST_CASE("http reply: who states no version cannot be read") {
  ReplyHead head = part("bytes 0-9/1000", "");
  head.last_modified.clear();
  CHECK(judge_reply(head, 0, 9, nullptr).error.kind == ErrorKind::kUnsupported);
  head.etag = "\"" + std::string(2000, 'x') + "\"";
  CHECK(judge_reply(head, 0, 9, nullptr).meaning == ReplyMeaning::kFailed);
  head.etag = "\"a\nb\"";
  CHECK(judge_reply(head, 0, 9, nullptr).meaning == ReplyMeaning::kFailed);
}

TEST_CASE("http reply: a weak ETag alone tells no versions apart") {
  ReplyHead head = part("bytes 0-9/1000", "W/\"one\"");
  ObjectPin weak = judge_reply(head, 0, 9, nullptr).pin;
  CHECK(judge_reply(head, 0, 9, &weak).meaning == ReplyMeaning::kBytes);
  head.last_modified = "today";
  CHECK(judge_reply(head, 0, 9, &weak).meaning == ReplyMeaning::kChanged);
  head.last_modified.clear();
  CHECK(judge_reply(head, 0, 9, nullptr).error.kind == ErrorKind::kUnsupported);
}

TEST_CASE("http reply: what was modified just now needs a strong ETag") {
  ReplyHead head = part("bytes 0-9/1000", "");
  CHECK(judge_reply(head, 0, 9, nullptr).meaning == ReplyMeaning::kBytes);
  head.is_fresh = true;
  CHECK(judge_reply(head, 0, 9, nullptr).meaning == ReplyMeaning::kFailed);
  head.etag = "\"one\"";
  CHECK(judge_reply(head, 0, 9, nullptr).meaning == ReplyMeaning::kBytes);
}

TEST_CASE("http reply: only a strong ETag is a condition") {
  using Lines = std::vector<std::string>;
  CHECK(kPin.conditions() == Lines{"If-Match: \"one\""});
  ObjectPin weak = kPin;
  weak.etag = "W/\"one\"";
  CHECK(weak.conditions() == Lines{"If-Unmodified-Since: yesterday"});
  weak.last_modified.clear();
  CHECK(weak.conditions().empty());
}

TEST_CASE("http reply: a store's error code") {
  CHECK(error_code_of("<?xml?><Error><Code>NoSuchKey</Code><Message/></Error>") == "NoSuchKey");
  CHECK(error_code_of("<html>not found</html>").empty());
  CHECK(error_code_of("<Code>cut").empty());
  CHECK(error_code_of("<Code>" + std::string(100, 'x') + "</Code>").empty());
}

}  // namespace
}  // namespace underlay
