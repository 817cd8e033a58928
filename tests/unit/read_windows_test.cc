#include "io/http/read_windows.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>

namespace underlay {
namespace {

constexpr uint64_t kWindow = ReadWindows::kWindowBytes;

std::byte byte_at(uint64_t offset) { return static_cast<std::byte>(offset * 31 / 7); }

// A far object that notes what is fetched of it.
struct Far {
  uint64_t size;
  std::vector<std::pair<uint64_t, size_t>> fetched;
  std::atomic<int> fail_next = 0;
  std::mutex mutex;

  Result<void> fetch(uint64_t offset, MutableByteSpan out) {
    const std::lock_guard lock(mutex);
    fetched.emplace_back(offset, out.size());
    if (fail_next > 0) {
      --fail_next;
      return fail(ErrorKind::kIo, "far away");
    }
    for (size_t i = 0; i < out.size(); ++i) out[i] = byte_at(offset + i);
    return {};
  }
};

struct Opened {
  explicit Opened(uint64_t size) {
    far.size = size;
    std::vector<std::byte> first(std::min(size, kWindow));
    for (size_t i = 0; i < first.size(); ++i) first[i] = byte_at(i);
    windows.emplace(size, first,
                    [this](uint64_t at, MutableByteSpan out) { return far.fetch(at, out); });
  }
  // Are these the right bytes?
  bool reads(uint64_t offset, size_t length) {
    std::vector<std::byte> out(length);
    return windows->read(offset, out) && is_right(offset, out);
  }
  static bool is_right(uint64_t offset, const std::vector<std::byte>& bytes) {
    for (size_t i = 0; i < bytes.size(); ++i) {
      if (bytes[i] != byte_at(offset + i)) return false;
    }
    return true;
  }
  Far far;
  std::optional<ReadWindows> windows;
};

TEST_CASE("read windows: what opening brought is not fetched again") {
  Opened opened(100);
  CHECK(opened.reads(0, 100));
  CHECK(opened.reads(99, 1));
  CHECK(opened.far.fetched.empty());
}

TEST_CASE("read windows: close reads are one fetch, and a window is fetched whole") {
  Opened opened(100 * kWindow + 5);
  CHECK(opened.reads(50 * kWindow + 1000, 512));
  CHECK(opened.reads(50 * kWindow, 4096));
  CHECK(opened.reads(51 * kWindow - 1, 1));
  REQUIRE(opened.far.fetched.size() == 1);
  CHECK(opened.far.fetched[0] == std::pair<uint64_t, size_t>(50 * kWindow, kWindow));
  CHECK(opened.reads(100 * kWindow, 5));
  CHECK(opened.far.fetched.back() == std::pair<uint64_t, size_t>(100 * kWindow, 5));
}

TEST_CASE("read windows: reads that go on fetch more at once, up to a limit") {
  Opened opened(64 * kWindow);
  for (uint64_t at = 0; at < 64 * kWindow; at += 4096) REQUIRE(opened.reads(at, 4096));
  std::vector<size_t> sizes;
  for (const auto& [at, size] : opened.far.fetched) sizes.push_back(size / kWindow);
  REQUIRE(sizes.size() >= 4);
  CHECK(sizes[0] == 2);
  CHECK(sizes[1] == 4);
  CHECK(sizes[2] == ReadWindows::kMostAtOnce);
  CHECK(*std::ranges::max_element(sizes) == ReadWindows::kMostAtOnce);
}

TEST_CASE("read windows: a read over two windows") {
  Opened opened(64 * kWindow);
  CHECK(opened.reads(20 * kWindow - 100, 200));
  CHECK(opened.reads(30 * kWindow - 1, kWindow));
}

TEST_CASE("read windows: no more are kept than the budget says") {
  Opened opened(200 * kWindow);
  for (uint64_t i = 0; i < 200; i += 2) REQUIRE(opened.reads(i * kWindow, 1));
  size_t kept = 0;
  std::byte byte{};
  for (uint64_t i = 0; i < 200; ++i) kept += opened.windows->read_cached(i * kWindow, {&byte, 1});
  CHECK(kept == ReadWindows::kKept);
}

TEST_CASE("read windows: what is cached is read without fetching") {
  Opened opened(64 * kWindow);
  std::vector<std::byte> out(3 * kWindow);
  CHECK(opened.windows->read_cached(10 * kWindow, out) == 0);
  REQUIRE(opened.reads(10 * kWindow, 1));
  REQUIRE(opened.reads(11 * kWindow, 1));
  const size_t before = opened.far.fetched.size();
  const size_t got = opened.windows->read_cached(10 * kWindow + 7, out);
  CHECK(got >= 2 * kWindow - 7);
  out.resize(got);
  CHECK(Opened::is_right(10 * kWindow + 7, out));
  CHECK(opened.far.fetched.size() == before);
}

TEST_CASE("read windows: a failure is not remembered") {
  Opened opened(64 * kWindow);
  opened.far.fail_next = 1;
  CHECK_FALSE(opened.reads(9 * kWindow, 100));
  CHECK(opened.reads(9 * kWindow, 100));
}

TEST_CASE("read windows: many threads fetch a window once") {
  Opened opened(64 * kWindow);
  std::atomic<int> right = 0;
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 8; ++i) {
      threads.emplace_back([&] {
        for (uint64_t at = 40; at < 60; at += 3) right += opened.reads(at * kWindow + 5, 1000);
      });
    }
  }
  CHECK(right == 8 * 7);
  auto fetched = opened.far.fetched;
  std::ranges::sort(fetched);
  CHECK(std::adjacent_find(fetched.begin(), fetched.end()) == fetched.end());
}

}  // namespace
}  // namespace underlay
