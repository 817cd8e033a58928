// Page-aligned buffers, reused, under a byte budget that all rings of a program share.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <vector>

#include "io/bytes.h"

namespace underlay {

// How many bytes all pools together may hand out. Thread-safe.
//
// What answers a request may need a second, small buffer while it holds its first, large one. So
// the large ones (kBulk) leave a reserve to the small ones (kSmall): else many large ones could
// wait for each other for ever.
class ByteBudget {
 public:
  enum class Use : uint8_t { kBulk, kSmall };
  // `reserve` of the `limit` bytes is for kSmall alone. REQUIRES: reserve <= limit.
  ByteBudget(uint64_t limit, uint64_t reserve) : limit_(limit), reserve_(reserve) {}
  bool take(uint64_t bytes, Use use) {
    const uint64_t limit = use == Use::kSmall ? limit_ : limit_ - reserve_;
    if (used_.fetch_add(bytes, std::memory_order_relaxed) + bytes <= limit) return true;
    give_back(bytes);
    return false;
  }
  void give_back(uint64_t bytes) { used_.fetch_sub(bytes, std::memory_order_relaxed); }
  uint64_t used() const { return used_.load(std::memory_order_relaxed); }
  // What kBulk may still take.
  uint64_t left() const {
    const uint64_t limit = limit_ - reserve_;
    return limit - std::min(limit, used());
  }

 private:
  const uint64_t limit_;
  const uint64_t reserve_;
  std::atomic<uint64_t> used_ = 0;
};

class BufferPool;

// Memory from a pool, given back when this is destroyed. The pool outlives it.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();

  std::byte* data() const { return data_; }
  size_t capacity() const { return capacity_; }
  explicit operator bool() const { return data_ != nullptr; }

 private:
  friend class BufferPool;
  Buffer(BufferPool* pool, std::byte* data, size_t capacity, uint64_t held)
      : pool_(pool), data_(data), capacity_(capacity), held_(held) {}

  BufferPool* pool_ = nullptr;
  std::byte* data_ = nullptr;
  size_t capacity_ = 0;
  uint64_t held_ = 0;
};

// Belongs to one thread, as do the buffers while they are moved or destroyed (others may fill
// them).
class BufferPool {
 public:
  // `budget` outlives the pool.
  explicit BufferPool(ByteBudget& budget) : budget_(budget) {}
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  // At least `size` bytes, uninitialised. nullopt when the budget is used up, or no memory is left.
  // `held` bytes that lie elsewhere, and that who has the buffer keeps alive, count as its own.
  // kBulk is given at most a kShare-th of what is left for it: however many ask for much, and keep
  // it, there is some left for those who ask for little.
  std::optional<Buffer> allocate(size_t size, ByteBudget::Use use, uint64_t held = 0);
  static constexpr unsigned kShare = 4;

  // Of the budget: ByteBudget::left().
  uint64_t left() const { return budget_.left(); }

 private:
  friend class Buffer;
  void release(std::byte* data, size_t capacity, uint64_t held);

  // Powers of two from 4 KiB to 256 KiB are kept for reuse; larger buffers go back to the system.
  static constexpr size_t kSmallest = 4 << 10;
  static constexpr size_t kClasses = 7;
  static constexpr size_t kKeptBytes = 1 << 20;  // of each class

  ByteBudget& budget_;
  std::array<std::vector<std::byte*>, kClasses> free_;
};

}  // namespace underlay
