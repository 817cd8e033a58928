// How the clients share the memory for replies.
#pragma once

#include <algorithm>
#include <cstdint>

#include "io/buffer_pool.h"
#include "server/limits.h"

namespace underlay {

// What one client may take where limits.h allows `most`: as long as half of the memory is left, all
// of that; then only a small part of the rest, so that the last of thousands who read no replies
// leaves enough to those who do.
inline uint64_t share_of_reply_memory(uint64_t most, const BufferPool& buffers) {
  const uint64_t left = buffers.left();
  return left >= limits::kReplyMemory / 2 ? most : std::min(most, left / limits::kScarceShare);
}

}  // namespace underlay
