// The one way to open a file in the cache's folder: whatever else lies there under its name is
// refused, and never waited for.
#pragma once

#include <string>

#include "io/error.h"
#include "io/unique_fd.h"

namespace underlay {

enum class CacheAccess : uint8_t { kRead, kReadWrite };
enum class CacheMake : uint8_t { kNo, kIfMissing, kAlways };  // kAlways: fails when it is there

// A regular file that has no other name; one that was evicted meanwhile has none. One that is made
// is given to the owner of `folder`, when root makes it for somebody else. kNotFound: there is
// none. kDenied: it is something else. Else sys_errno says why. Thread-safe; does not block.
Result<UniqueFd> open_cache_file(int folder, const std::string& name, CacheAccess access,
                                 CacheMake make = CacheMake::kNo);

}  // namespace underlay
