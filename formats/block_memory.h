// Memory for the blocks of a cache. What is evicted is what the next load needs: it is handed on
// without a trip to the system, and without filling it with zeros first.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "io/bytes.h"

namespace underlay {

class BlockMemory;

// Bytes from a BlockMemory, which get back there when this is destroyed.
class Block {
 public:
  Block(BlockMemory& home, std::unique_ptr<std::byte[]> bytes, size_t size)
      : home_(home), bytes_(std::move(bytes)), size_(size) {}
  ~Block();
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  MutableByteSpan writable() { return {bytes_.get(), size_}; }

  const std::byte* data() const { return bytes_.get(); }
  size_t size() const { return size_; }
  const std::byte* begin() const { return data(); }
  const std::byte* end() const { return data() + size_; }
  // REQUIRES: size() > 0.
  std::byte front() const { return bytes_[0]; }
  std::byte back() const { return bytes_[size_ - 1]; }

 private:
  BlockMemory& home_;
  std::unique_ptr<std::byte[]> bytes_;
  size_t size_;
};

// Thread-safe. Outlives its blocks.
class BlockMemory {
 public:
  // Keeps at most `keep` bytes for blocks to come.
  explicit BlockMemory(uint64_t keep);

  // Uninitialised.
  std::shared_ptr<Block> allocate(size_t size);

  // Bytes that belong to no block now.
  uint64_t kept() const;

 private:
  friend class Block;
  struct Free {
    std::unique_ptr<std::byte[]> bytes;
    size_t size = 0;
  };
  std::unique_ptr<std::byte[]> take_free(size_t size);
  void give_back(Free free);

  static constexpr size_t kMaxFree = 64;

  const uint64_t keep_;
  mutable std::mutex mutex_;
  std::vector<Free> free_;  // under mutex_; the oldest first
  uint64_t kept_ = 0;       // under mutex_
};

}  // namespace underlay
