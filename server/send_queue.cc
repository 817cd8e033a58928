#include "server/send_queue.h"

#include <algorithm>
#include <bit>
#include <cassert>

#include "server/limits.h"
#include "server/reply_memory.h"

namespace underlay {
namespace {

// Replies without data need no large buffer, unless there are many.
constexpr size_t kSmallBuffer = 4 << 10;
constexpr size_t kManySmall = 32 << 10;

size_t batch_bytes(size_t size, const BufferPool& pool) {
  const uint64_t share = share_of_reply_memory(limits::kBatchBuffer, pool);
  return std::max(size, std::bit_floor(static_cast<size_t>(share)));
}

// What all zeros are sent from: it stays in the processor's cache.
constexpr std::array<std::byte, 64 << 10> kZeros{};

}  // namespace

MutableByteSpan SendQueue::reserve(size_t size) {
  assert(size > 0 && size <= limits::kBatchBuffer);
  if (room_ < size) {
    const bool small = size <= kSmallBuffer / 2;
    auto buffer = small ? pool_.allocate(unsent_ < kSmallBuffer ? kSmallBuffer : kManySmall,
                                         ByteBudget::Use::kSmall)
                        : pool_.allocate(batch_bytes(size, pool_), ByteBudget::Use::kBulk);
    if (!buffer) return {};
    room_ = buffer->capacity();
    const std::byte* data = buffer->data();
    Segment& segment = segments_.emplace_back();
    segment.buffer = *std::move(buffer);
    segment.data = data;
  }
  const Segment& last = segments_.back();
  return {last.buffer.data() + (last.buffer.capacity() - room_), size};
}

void SendQueue::commit(size_t size) {
  assert(size <= room_);
  segments_.back().size += size;
  room_ -= size;
  unsent_ += size;
}

void SendQueue::append(ByteSpan bytes) {
  Segment& segment = segments_.emplace_back();
  segment.data = bytes.data();
  segment.size = bytes.size();
  room_ = 0;
  unsent_ += bytes.size();
}

void SendQueue::append_file(int fd, uint64_t offset, size_t size) {
  Segment& segment = segments_.emplace_back();
  segment.fd = fd;
  segment.file_offset = offset;
  segment.size = size;
  room_ = 0;
  unsent_ += size;
}

void SendQueue::append_block(BlockCache::Handle block, ByteSpan bytes) {
  append(bytes);
  segments_.back().block = std::move(block);
}

void SendQueue::append_zeros(uint64_t size) {
  while (size > 0) {
    const auto part = static_cast<size_t>(std::min<uint64_t>(size, kZeros.size()));
    append(ByteSpan(kZeros).first(part));
    size -= part;
  }
}

void SendQueue::append_owner(Buffer owner) {
  Segment& segment = segments_.emplace_back();
  segment.data = owner.data();
  segment.buffer = std::move(owner);
  room_ = 0;
}

void SendQueue::release_memory() {
  assert(unsent_ == 0);
  std::vector<Segment>().swap(segments_);
  front_ = 0;
  room_ = 0;
}

std::optional<SendQueue::FilePart> SendQueue::file() const {
  for (size_t i = front_; i < segments_.size(); ++i) {
    const Segment& segment = segments_[i];
    if (segment.size == 0) continue;
    if (segment.fd < 0) return std::nullopt;
    return FilePart{.fd = segment.fd, .offset = segment.file_offset, .size = segment.size};
  }
  return std::nullopt;
}

bool SendQueue::prepare(msghdr& message) {
  size_t count = 0;
  size_t left = limits::kSendBytes;
  bool file_follows = false;
  for (size_t i = front_; i < segments_.size() && count < kVectors && left > 0; ++i) {
    const Segment& segment = segments_[i];
    if (segment.size == 0) continue;
    file_follows = segment.fd >= 0;
    if (file_follows) break;
    const size_t part = std::min(segment.size, left);
    vectors_[count++] = iovec{const_cast<std::byte*>(segment.data), part};
    left -= part;
  }
  room_ = 0;  // what is being sent does not grow
  message = {};
  message.msg_iov = vectors_.data();
  message.msg_iovlen = count;
  return file_follows;
}

void SendQueue::sent(size_t count) {
  assert(count <= unsent_);
  unsent_ -= count;
  while (front_ < segments_.size()) {
    Segment& segment = segments_[front_];
    const size_t part = std::min(count, segment.size);
    if (segment.fd < 0) {
      segment.data += part;
    } else {
      segment.file_offset += part;
    }
    segment.size -= part;
    count -= part;
    // The last segment may still take replies: reserve() has been called for it since.
    if (segment.size > 0 || (room_ > 0 && front_ + 1 == segments_.size())) break;
    drop_front();
  }
}

void SendQueue::drop_front() {
  segments_[front_].block = nullptr;
  segments_[front_++].buffer = Buffer();
  if (front_ == segments_.size()) {
    segments_.clear();
    front_ = 0;
  } else if (front_ >= 64 && front_ * 2 > segments_.size()) {
    segments_.erase(segments_.begin(), segments_.begin() + static_cast<std::ptrdiff_t>(front_));
    front_ = 0;
  }
}

}  // namespace underlay
