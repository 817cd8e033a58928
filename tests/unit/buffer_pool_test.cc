#include "io/buffer_pool.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <vector>

namespace underlay {
namespace {

using Use = ByteBudget::Use;

TEST_CASE("budget: large buffers leave the reserve to small ones") {
  ByteBudget budget(100, 30);
  CHECK(!budget.take(71, Use::kBulk));
  CHECK(budget.take(70, Use::kBulk));
  CHECK(!budget.take(1, Use::kBulk));
  CHECK(budget.take(30, Use::kSmall));
  CHECK(!budget.take(1, Use::kSmall));
}

TEST_CASE("budget: is never exceeded, and what did not fit is not counted") {
  ByteBudget budget(100, 0);
  CHECK(budget.take(60, Use::kSmall));
  CHECK(!budget.take(41, Use::kSmall));
  CHECK(budget.used() == 60);
  CHECK(budget.take(40, Use::kSmall));
  CHECK(!budget.take(1, Use::kSmall));
  budget.give_back(100);
  CHECK(budget.used() == 0);
}

TEST_CASE("buffer: has room for what was asked, aligned to a page") {
  ByteBudget budget(1 << 30, 0);
  BufferPool pool(budget);
  for (const size_t size : {1u, 4096u, 4097u, 262'144u, 262'145u, 33'554'432u}) {
    auto buffer = pool.allocate(size, Use::kSmall);
    REQUIRE(buffer);
    CHECK(buffer->capacity() >= size);
    CHECK(buffer->capacity() < 2 * size + 4096);
    CHECK(reinterpret_cast<uintptr_t>(buffer->data()) % 4096 == 0);
    CHECK(budget.used() == buffer->capacity());
    std::memset(buffer->data(), 0xab, buffer->capacity());
    buffer.reset();
    CHECK(budget.used() == 0);
  }
}

TEST_CASE("buffer: whoever asks for much leaves something to those who ask for little") {
  ByteBudget budget(64 << 20, 0);
  BufferPool pool(budget);
  std::vector<Buffer> kept;
  for (const size_t size : {size_t{16} << 20, size_t{1} << 20, size_t{64} << 10}) {
    while (auto buffer = pool.allocate(size, Use::kBulk)) kept.push_back(*std::move(buffer));
    CHECK(pool.left() < BufferPool::kShare * size);
    CHECK(pool.left() >= (BufferPool::kShare - 1) * size);
  }
  CHECK(pool.allocate(4096, Use::kBulk));
  CHECK(!pool.allocate(4096, Use::kBulk, 64 << 10));  // what is held elsewhere counts
}

TEST_CASE("buffer: of a used-up budget there is none, until one is given back") {
  ByteBudget budget(2 * 4096, 0);
  BufferPool pool(budget);
  auto one = pool.allocate(4096, Use::kSmall);
  auto two = pool.allocate(100, Use::kSmall);
  REQUIRE(one);
  REQUIRE(two);
  CHECK(!pool.allocate(1, Use::kSmall));
  one.reset();
  CHECK(pool.allocate(1, Use::kSmall));
  CHECK(budget.used() == 4096);
}

TEST_CASE("buffer: pools share a budget") {
  ByteBudget budget(4096, 0);
  BufferPool first(budget);
  BufferPool second(budget);
  auto held = first.allocate(1, Use::kSmall);
  CHECK(!second.allocate(1, Use::kSmall));
  held.reset();
  CHECK(second.allocate(1, Use::kSmall));
}

TEST_CASE("buffer: small ones are used again") {
  ByteBudget budget(1 << 30, 0);
  BufferPool pool(budget);
  auto buffer = pool.allocate(5000, Use::kSmall);
  const std::byte* data = buffer->data();
  buffer.reset();
  CHECK(pool.allocate(8000, Use::kSmall)->data() == data);  // of the same class
  CHECK(pool.allocate(9000, Use::kSmall)->data() != data);
}

TEST_CASE("buffer: has one owner, who gives it back once") {
  ByteBudget budget(1 << 30, 0);
  BufferPool pool(budget);
  Buffer outer;
  CHECK(!outer);
  {
    Buffer inner = *pool.allocate(4096, Use::kSmall);
    Buffer other = *pool.allocate(8192, Use::kSmall);
    CHECK(budget.used() == 4096 + 8192);
    outer = std::move(inner);
    Buffer last(std::move(other));
    CHECK(!other);  // NOLINT(bugprone-use-after-move): what a move leaves is part of the contract
    CHECK(last.capacity() == 8192);
  }
  CHECK(outer);
  CHECK(budget.used() == 4096);
  outer = Buffer();
  CHECK(budget.used() == 0);
}

TEST_CASE("buffer: what its user holds elsewhere counts as long as it lives") {
  ByteBudget budget(400'000, 0);
  BufferPool pool(budget);
  CHECK_FALSE(pool.allocate(4096, Use::kBulk, 100'000));
  CHECK(budget.used() == 0);
  {
    Buffer buffer = *pool.allocate(4096, Use::kBulk, 90'000);
    CHECK(buffer.capacity() == 4096);
    Buffer moved(std::move(buffer));
    CHECK(budget.used() == 94'096);
    CHECK_FALSE(pool.allocate(8192, Use::kBulk, 90'000));
  }
  CHECK(budget.used() == 0);
}

}  // namespace
}  // namespace underlay
