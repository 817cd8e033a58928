// How a file of an image looks, to notice when it is another one.
#pragma once

#include <string>

#include "io/error.h"
#include "tools/thin/registry.h"

namespace underlay::thin {

// Of an open regular file or block device; `path` is for the stamp and for messages. Block devices
// have the time 0: their content has none (their node has one, which each boot changes).
Result<FileStamp> stamp_of(int fd, const std::string& path);

// Fails, saying what differs and what to do, unless both are the same file in the same state.
Result<void> check_stamp(const FileStamp& was, const FileStamp& now);

// What to do about an image that changed, for messages.
inline constexpr const char* kPutImageBack =
    "put the original back, or 'underlay-thin activate --accept-changed-image'";

}  // namespace underlay::thin
