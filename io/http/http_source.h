// An object on a web server or an S3 store as a source.
//
//   name    --http_target()--> URL, credentials, certificates
//   read_at --ReadWindows--> small reads come out of larger ones, neighbours wait for the same one
//           --RangeReader--> pieces, several at a time, tried again --libcurl--> the server
//           --judge_reply()--> bytes of the very object that was opened, or a failure
#pragma once

#include <memory>
#include <string>

#include "io/http/http_limits.h"
#include "io/source.h"

namespace underlay {

// `name`: http://, https:// or s3:// (remote_name.h). The source's name is what messages may show
// of it. The object is pinned: once it is another one (its ETag, Last-Modified or size), every read
// fails and says so, and so does check_unchanged(). kNotFound when there is none, kDenied when the
// server does not allow it, kUnsupported when the server knows no ranges. Blocks.
//
// What is read in small pieces is kept in memory (read_windows.h), and so is the beginning of the
// object, which is asked for to learn what it is. With kCaller only one byte of it is, because
// whoever opens it reads by fetch_at() and keeps the bytes.
enum class HttpKeeper : uint8_t { kSource, kCaller };
Result<std::shared_ptr<const Source>> open_http_source(const std::string& name,
                                                       HttpKeeper keeper = HttpKeeper::kSource,
                                                       const HttpLimits& limits = {});

}  // namespace underlay
