// All bytes of a source, read by several threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "io/source.h"

namespace underlay::test {

// The threads take turns with units of so many bytes. Fails as the first read that fails.
inline Result<std::vector<std::byte>> read_all(const Source& source, size_t threads,
                                               uint64_t unit) {
  std::vector<std::byte> content(source.size());
  std::mutex mutex;
  std::optional<Error> failure;
  std::atomic<uint64_t> next = 0;
  const auto work = [&] {
    for (uint64_t at; (at = next.fetch_add(unit)) < content.size();) {
      const size_t length = std::min<uint64_t>(unit, content.size() - at);
      auto done = source.read_at(at, MutableByteSpan(content).subspan(at, length));
      const std::lock_guard lock(mutex);
      if (!done && !failure) failure = std::move(done).error();
      if (failure) return;
    }
  };
  {
    std::vector<std::jthread> running;
    for (size_t i = 0; i < threads; ++i) running.emplace_back(work);
  }
  if (failure) return Failure(*failure);
  return content;
}

}  // namespace underlay::test
