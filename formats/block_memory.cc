#include "formats/block_memory.h"

#include <algorithm>

namespace underlay {

Block::~Block() { home_.give_back({.bytes = std::move(bytes_), .size = size_}); }

BlockMemory::BlockMemory(uint64_t keep) : keep_(keep) {
  free_.reserve(kMaxFree + 1);  // giving back never allocates
}

std::shared_ptr<Block> BlockMemory::allocate(size_t size) {
  auto bytes = take_free(size);
  if (!bytes) bytes = std::make_unique_for_overwrite<std::byte[]>(size);
  return std::make_shared<Block>(*this, std::move(bytes), size);
}

std::unique_ptr<std::byte[]> BlockMemory::take_free(size_t size) {
  const std::lock_guard lock(mutex_);
  // The newest is the likeliest to be in the processor's cache.
  const auto found = std::find_if(free_.rbegin(), free_.rend(),
                                  [&](const Free& free) { return free.size == size; });
  if (found == free_.rend()) return nullptr;
  auto bytes = std::move(found->bytes);
  free_.erase(std::next(found).base());
  kept_ -= size;
  return bytes;
}

void BlockMemory::give_back(Free free) {
  if (free.size > keep_) return;
  const std::lock_guard lock(mutex_);
  kept_ += free.size;
  free_.push_back(std::move(free));
  // Sizes that nobody asks for any more make room.
  while (kept_ > keep_ || free_.size() > kMaxFree) {
    kept_ -= free_.front().size;
    free_.erase(free_.begin());
  }
}

uint64_t BlockMemory::kept() const {
  const std::lock_guard lock(mutex_);
  return kept_;
}

}  // namespace underlay
