// What a server's reply to a request for a range means. Pure: no I/O.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/error.h"

namespace underlay {

// RFC 9110, 14.4: "bytes FIRST-LAST/SIZE", or of a range that cannot be had "bytes */SIZE".
struct ContentRange {
  struct Bytes {
    uint64_t first = 0;
    uint64_t last = 0;
    bool operator==(const Bytes&) const = default;
  };
  std::optional<Bytes> bytes;
  std::optional<uint64_t> size;
  bool operator==(const ContentRange&) const = default;
};
// nullopt for what is no such field.
std::optional<ContentRange> parse_content_range(std::string_view text);

// Which object was opened, and which version of it. Every reply must be of this one.
struct ObjectPin {
  uint64_t size = 0;          // bytes
  std::string etag;           // "" = the server states none
  std::string last_modified;  // the same

  // A strong ETag, which servers compare byte for byte (RFC 9110, 8.8.1).
  bool has_strong_etag() const { return etag.starts_with('"'); }
  // Fields of a request that no other version may answer.
  std::vector<std::string> conditions() const;
};

// Fields of a reply; "" when it has none.
struct ReplyHead {
  long status = 0;
  std::string content_range;
  std::string content_length;
  std::string etag;
  std::string last_modified;
  // Was it modified within the second of the server's reply, or the one before?
  bool is_fresh = false;
};

enum class ReplyMeaning : uint8_t {
  kBytes,    // those that were asked for
  kEmpty,    // only at opening: the object has no bytes
  kLater,    // the server cannot answer now
  kKeys,     // it does not let us, with the keys of the request
  kChanged,  // it has another object now
  kFailed,   // it will not answer otherwise
};
struct JudgedReply {
  ReplyMeaning meaning = ReplyMeaning::kFailed;
  Error error;          // unless kBytes or kEmpty; without the object's name
  uint64_t length = 0;  // kBytes: of the body
  ObjectPin pin;        // kBytes, kEmpty: what the reply says
};

// Of a reply to a request for the bytes from `first` to `last`. `pin`: null when the object is
// being opened; then it may end before `last`.
JudgedReply judge_reply(const ReplyHead& head, uint64_t first, uint64_t last, const ObjectPin* pin);

// The <Code> of an S3 store's error document (Amazon S3 API Reference, "REST Error Responses"), of
// at most 64 letters; "" when it has none.
std::string error_code_of(std::string_view document);

}  // namespace underlay
