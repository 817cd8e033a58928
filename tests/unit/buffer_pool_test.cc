#include "io/buffer_pool.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>

namespace underlay {
namespace {

TEST_CASE("budget: is never exceeded, and what did not fit is not counted") {
  ByteBudget budget(100);
  CHECK(budget.take(60));
  CHECK(!budget.take(41));
  CHECK(budget.used() == 60);
  CHECK(budget.take(40));
  CHECK(!budget.take(1));
  budget.give_back(100);
  CHECK(budget.used() == 0);
}

TEST_CASE("buffer: has room for what was asked, aligned to a page") {
  ByteBudget budget(1 << 30);
  BufferPool pool(budget);
  for (const size_t size : {1u, 4096u, 4097u, 262'144u, 262'145u, 33'554'432u}) {
    auto buffer = pool.allocate(size);
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

TEST_CASE("buffer: of a used-up budget there is none, until one is given back") {
  ByteBudget budget(2 * 4096);
  BufferPool pool(budget);
  auto one = pool.allocate(4096);
  auto two = pool.allocate(100);
  REQUIRE(one);
  REQUIRE(two);
  CHECK(!pool.allocate(1));
  one.reset();
  CHECK(pool.allocate(1));
  CHECK(budget.used() == 4096);
}

TEST_CASE("buffer: pools share a budget") {
  ByteBudget budget(4096);
  BufferPool first(budget);
  BufferPool second(budget);
  auto held = first.allocate(1);
  CHECK(!second.allocate(1));
  held.reset();
  CHECK(second.allocate(1));
}

TEST_CASE("buffer: small ones are used again") {
  ByteBudget budget(1 << 30);
  BufferPool pool(budget);
  auto buffer = pool.allocate(5000);
  const std::byte* data = buffer->data();
  buffer.reset();
  CHECK(pool.allocate(8000)->data() == data);  // of the same class
  CHECK(pool.allocate(9000)->data() != data);
}

TEST_CASE("buffer: has one owner, who gives it back once") {
  ByteBudget budget(1 << 30);
  BufferPool pool(budget);
  Buffer outer;
  CHECK(!outer);
  {
    Buffer inner = *pool.allocate(4096);
    Buffer other = *pool.allocate(8192);
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

}  // namespace
}  // namespace underlay
