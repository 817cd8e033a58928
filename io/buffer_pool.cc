#include "io/buffer_pool.h"

#include <bit>
#include <cstdlib>
#include <utility>

namespace underlay {
namespace {

constexpr size_t kAlignment = 4096;  // what direct I/O wants

}  // namespace

Buffer::Buffer(Buffer&& other) noexcept
    : pool_(std::exchange(other.pool_, nullptr)),
      data_(std::exchange(other.data_, nullptr)),
      capacity_(std::exchange(other.capacity_, 0)),
      held_(std::exchange(other.held_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(pool_, other.pool_);
  std::swap(data_, other.data_);
  std::swap(capacity_, other.capacity_);
  std::swap(held_, other.held_);
  return *this;
}

Buffer::~Buffer() {
  if (data_ != nullptr) pool_->release(data_, capacity_, held_);
}

BufferPool::~BufferPool() {
  for (const auto& list : free_) {
    for (std::byte* data : list) std::free(data);
  }
}

std::optional<Buffer> BufferPool::allocate(size_t size, ByteBudget::Use use, uint64_t held) {
  const size_t capacity = std::bit_ceil(std::max(size, kSmallest));
  const bool too_much = use == ByteBudget::Use::kBulk && capacity + held > budget_.left() / kShare;
  if (too_much || !budget_.take(capacity + held, use)) return std::nullopt;
  const size_t index = static_cast<size_t>(std::countr_zero(capacity / kSmallest));
  if (index < kClasses && !free_[index].empty()) {
    std::byte* data = free_[index].back();
    free_[index].pop_back();
    return Buffer(this, data, capacity, held);
  }
  auto* data = static_cast<std::byte*>(std::aligned_alloc(kAlignment, capacity));
  if (data == nullptr) {
    budget_.give_back(capacity + held);
    return std::nullopt;
  }
  return Buffer(this, data, capacity, held);
}

void BufferPool::release(std::byte* data, size_t capacity, uint64_t held) {
  budget_.give_back(capacity + held);
  const size_t index = static_cast<size_t>(std::countr_zero(capacity / kSmallest));
  if (index < kClasses && (free_[index].size() + 1) * capacity <= kKeptBytes) {
    free_[index].push_back(data);
  } else {
    std::free(data);
  }
}

}  // namespace underlay
