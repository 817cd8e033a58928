#include "io/http/write_reply.h"

#include <algorithm>

#include "io/http/http_reply.h"

namespace underlay {
namespace {

constexpr size_t kMaxDocument = 64 << 10;  // bytes

WriteVerdict verdict(WriteVerdict::Meaning meaning, std::string_view document, Failure why) {
  Error error = std::move(why).value();
  if (const std::string code = error_code_of(document); !code.empty()) {
    error.message += fmt::format(" ({})", code);
  }
  return {.meaning = meaning, .result = Failure(std::move(error))};
}

}  // namespace

WriteVerdict judge_write(long status, std::string_view document) {
  using Meaning = WriteVerdict::Meaning;
  if (status >= 200 && status < 300) return {};
  const auto failed = [&](Meaning meaning, ErrorKind kind, std::string_view words) {
    return verdict(meaning, document, fail(kind, "{}: HTTP status {}", words, status));
  };
  switch (status) {
    case 400:  // also a token that has expired
    case 401:
    case 403:
      return failed(Meaning::kKeys, ErrorKind::kDenied, "the server does not allow it");
    case 404:
    case 409:
      return failed(Meaning::kFailed, ErrorKind::kNotFound,
                    "there is no such folder or bucket on the server");
    case 405:
      return failed(Meaning::kFailed, ErrorKind::kUnsupported,
                    "the server takes no files (PUT) at this address");
    case 501:  // Amazon's word for a body whose length is not stated
      return failed(Meaning::kFailed, ErrorKind::kUnsupported,
                    "the server takes no files (PUT) at this address, or wants to know a file's "
                    "length first: write the image to a file, and send that");
    case 411:
      return failed(Meaning::kFailed, ErrorKind::kUnsupported,
                    "the server wants to know a file's length first, which is known last: write "
                    "the image to a file, and send that");
    case 413:
    case 507:
      return failed(Meaning::kFailed, ErrorKind::kLimit, "it is too large for the server");
    case 408:
    case 425:
    case 429:
    case 500:
    case 502:
    case 503:
    case 504:
      return failed(Meaning::kLater, ErrorKind::kIo, "the server cannot take it now");
    default:
      break;
  }
  if (status >= 300 && status < 400) {
    return failed(Meaning::kFailed, ErrorKind::kUnsupported,
                  "the server sends us elsewhere, which uploads do not follow: name the URL there; "
                  "of an S3 store, set the bucket's region or endpoint");
  }
  return failed(Meaning::kFailed, ErrorKind::kIo, "the server does not take it");
}

void add_to_document(std::string_view part, std::string& document) {
  document.append(part.substr(0, kMaxDocument - std::min(kMaxDocument, document.size())));
}

}  // namespace underlay
