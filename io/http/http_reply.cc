#include "io/http/http_reply.h"

#include <algorithm>
#include <charconv>

#include "io/http/xml_element.h"

namespace underlay {
namespace {

constexpr size_t kMaxValidator = 1024;  // bytes of an ETag that we send back

bool take_text(std::string_view& rest, std::string_view expected) {
  if (!rest.starts_with(expected)) return false;
  rest.remove_prefix(expected.size());
  return true;
}

std::optional<uint64_t> take_number(std::string_view& rest) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), number);
  if (error != std::errc()) return std::nullopt;
  rest.remove_prefix(static_cast<size_t>(end - rest.data()));
  return number;
}

JudgedReply judged(ReplyMeaning meaning, Failure why) {
  return {.meaning = meaning, .error = std::move(why).value(), .length = 0, .pin = {}};
}

JudgedReply changed(std::string_view how) {
  return judged(
      ReplyMeaning::kChanged,
      fail(ErrorKind::kIo,
           "the object changed on its server since it was opened ({}): open it again", how));
}

JudgedReply empty(const ReplyHead& head) {
  JudgedReply reply;
  reply.meaning = ReplyMeaning::kEmpty;
  reply.pin = {.size = 0, .etag = head.etag, .last_modified = head.last_modified};
  return reply;
}

// RFC 9110, 15, and RFC 6585, 4. Any other status than 206.
JudgedReply judge_status(const ReplyHead& head, const ObjectPin* pin) {
  const long status = head.status;
  switch (status) {
    case 200:
      if (pin == nullptr && head.content_length == "0") return empty(head);
      return judged(ReplyMeaning::kFailed,
                    fail(ErrorKind::kUnsupported,
                         "the server knows no ranges: it answers a request for a part with the "
                         "whole (HTTP status 200 instead of 206), and images are read in parts"));
    case 401:
    case 403:
      return judged(
          ReplyMeaning::kKeys,
          fail(ErrorKind::kDenied, "the server does not allow it: HTTP status {}", status));
    case 404:
    case 410:
      if (pin != nullptr) return changed(fmt::format("HTTP status {}", status));
      return judged(ReplyMeaning::kFailed,
                    fail(ErrorKind::kNotFound, "is not there: HTTP status {}", status));
    case 412:
      return changed("HTTP status 412, the precondition failed");
    case 408:
    case 425:
    case 429:
    case 500:
    case 502:
    case 503:
    case 504:
      return judged(ReplyMeaning::kLater, fail(ErrorKind::kIo, "HTTP status {}", status));
    case 416:
      if (pin != nullptr) return changed("HTTP status 416, it ends before");
      if (const auto range = parse_content_range(head.content_range); range && range->size == 0u) {
        return empty(head);
      }
      break;
    default:
      break;
  }
  if (status >= 300 && status < 400) {
    return judged(
        ReplyMeaning::kFailed,
        fail(ErrorKind::kUnsupported,
             "the server sends us elsewhere, or where that is it does not say (HTTP status {}): "
             "name the URL there; of an S3 store, set the bucket's region or endpoint",
             status));
  }
  // 400: also a token that has expired.
  return judged(status == 400 ? ReplyMeaning::kKeys : ReplyMeaning::kFailed,
                fail(ErrorKind::kIo, "HTTP status {}", status));
}

bool is_validator(std::string_view text) {
  return text.size() <= kMaxValidator && std::ranges::all_of(text, [](char letter) {
           return static_cast<unsigned char>(letter) >= 0x20 && letter != 0x7f;
         });
}

}  // namespace

std::optional<ContentRange> parse_content_range(std::string_view text) {
  ContentRange range;
  if (!take_text(text, "bytes ")) return std::nullopt;
  if (!take_text(text, "*")) {
    const auto first = take_number(text);
    if (!first || !take_text(text, "-")) return std::nullopt;
    const auto last = take_number(text);
    if (!last || *last < *first) return std::nullopt;
    range.bytes = ContentRange::Bytes{.first = *first, .last = *last};
  }
  if (!take_text(text, "/")) return std::nullopt;
  if (!take_text(text, "*")) {
    range.size = take_number(text);
    if (!range.size) return std::nullopt;
  }
  if (!text.empty() || (range.bytes && range.size && range.bytes->last >= *range.size)) {
    return std::nullopt;
  }
  return range;
}

std::vector<std::string> ObjectPin::conditions() const {
  if (has_strong_etag()) return {"If-Match: " + etag};
  if (!last_modified.empty()) return {"If-Unmodified-Since: " + last_modified};
  return {};
}

JudgedReply judge_reply(const ReplyHead& head, uint64_t first, uint64_t last,
                        const ObjectPin* pin) {
  if (head.status != 206) return judge_status(head, pin);
  const auto range = parse_content_range(head.content_range);
  if (!range || !range->bytes || !range->size) {
    return judged(ReplyMeaning::kFailed,
                  fail(ErrorKind::kMalformed,
                       "the server's Content-Range \"{}\" does not say which part it sends, and of "
                       "how many bytes",
                       printable(head.content_range, 80)));
  }
  JudgedReply reply{.meaning = ReplyMeaning::kBytes, .error = {}, .length = 0, .pin = {}};
  reply.pin = {.size = *range->size, .etag = head.etag, .last_modified = head.last_modified};
  if (pin != nullptr) {
    if (reply.pin.size != pin->size) {
      return changed(fmt::format("{} bytes, not {}", reply.pin.size, pin->size));
    }
    if (reply.pin.etag != pin->etag) return changed("another ETag");
    if (!pin->has_strong_etag() && reply.pin.last_modified != pin->last_modified) {
      return changed("another Last-Modified");
    }
  } else if (!reply.pin.has_strong_etag() && head.last_modified.empty()) {
    return judged(ReplyMeaning::kFailed,
                  fail(ErrorKind::kUnsupported,
                       "the server states neither a strong ETag nor a Last-Modified: nobody could "
                       "tell whether the object changes while it is read"));
  } else if (!reply.pin.has_strong_etag() && head.is_fresh) {
    // RFC 9110, 8.8.2.2: the time has whole seconds, and may be that of two versions.
    return judged(ReplyMeaning::kFailed,
                  fail(ErrorKind::kIo,
                       "the object was modified just now, and the server states no strong ETag: "
                       "what follows may still be written; open it again in some seconds"));
  } else if (!is_validator(head.etag) || !is_validator(head.last_modified)) {
    return judged(ReplyMeaning::kFailed,
                  fail(ErrorKind::kMalformed,
                       "the server's ETag or Last-Modified is longer than {} "
                       "bytes, or no text",
                       kMaxValidator));
  }
  const ContentRange::Bytes wanted{.first = first, .last = std::min(last, *range->size - 1)};
  if (*range->bytes != wanted) {
    return judged(ReplyMeaning::kFailed,
                  fail(ErrorKind::kMalformed, "the server sends the bytes {}-{} instead of {}-{}",
                       range->bytes->first, range->bytes->last, wanted.first, wanted.last));
  }
  reply.length = wanted.last - wanted.first + 1;
  return reply;
}

std::string error_code_of(std::string_view document) {
  constexpr size_t kMaxCode = 64;
  return printable(element_of(document, "Code", kMaxCode));
}

}  // namespace underlay
