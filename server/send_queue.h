// Replies on their way to one client: small ones packed into shared buffers, large payloads in
// buffers of their own or still in their files, all sent in order by one send at a time.
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "formats/block_cache.h"
#include "io/buffer_pool.h"
#include "io/bytes.h"

namespace underlay {

// Belongs to the ring thread of its session.
class SendQueue {
 public:
  // `pool` outlives the queue.
  explicit SendQueue(BufferPool& pool) : pool_(pool) {}

  // `size` bytes to write a reply to, of which commit() then sends the first ones. Valid until the
  // next call of any method. An empty span when the reply memory is used up.
  // REQUIRES: 0 < size <= limits::kBatchBuffer.
  MutableByteSpan reserve(size_t size);
  // The first `size` bytes of what reserve() gave last are a reply, or a part of one.
  void commit(size_t size);

  // `bytes` follow. They stay where they are until a later append_owner() of the buffer that they
  // lie in has been sent.
  void append(ByteSpan bytes);
  // `size` bytes of a file at `offset` follow. `fd` stays open until they have been sent.
  void append_file(int fd, uint64_t offset, size_t size);
  // `bytes` follow, which lie in `block`: held until they have been sent.
  void append_block(BlockCache::Handle block, ByteSpan bytes);
  // `size` zeros follow. They take no memory.
  void append_zeros(uint64_t size);
  // Frees `owner` once all that was queued before has been sent.
  void append_owner(Buffer owner);

  // Bytes that have not been sent.
  size_t unsent() const { return unsent_; }

  // Gives back what an empty queue keeps. REQUIRES: unsent() == 0, and no send is under way.
  void release_memory();

  struct FilePart {
    int fd = -1;
    uint64_t offset = 0;
    size_t size = 0;
  };
  // What must go out first, if it lies in a file.
  std::optional<FilePart> file() const;
  // Fills `message` with what may go out now, up to where the bytes of a file follow: it points
  // into this queue until sent(). True when they follow at once. REQUIRES: !file().
  bool prepare(msghdr& message);
  // `count` bytes of what file() or prepare() gave have been sent.
  void sent(size_t count);

 private:
  struct Segment {
    Buffer buffer;                    // what to free after it; may be empty
    BlockCache::Handle block;         // the same
    const std::byte* data = nullptr;  // first unsent byte in memory...
    int fd = -1;                      // ...or the file that it is in
    uint64_t file_offset = 0;
    size_t size = 0;  // unsent bytes
  };
  static constexpr size_t kVectors = 64;

  void drop_front();

  BufferPool& pool_;
  std::vector<Segment> segments_;  // those from front_ on
  size_t front_ = 0;
  size_t room_ = 0;  // bytes left in the last segment's buffer; 0 when it takes no more
  size_t unsent_ = 0;
  std::array<iovec, kVectors> vectors_;
};

}  // namespace underlay
