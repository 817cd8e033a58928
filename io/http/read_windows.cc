#include "io/http/read_windows.h"

#include <algorithm>
#include <cassert>

namespace underlay {

ReadWindows::ReadWindows(uint64_t size, ByteSpan first, Fetch fetch)
    : size_(size), fetch_(std::move(fetch)) {
  if (size == 0 || first.size() < bytes_of(0)) return;
  auto window = std::make_shared<Window>();
  window->bytes.assign(first.begin(), first.begin() + static_cast<ptrdiff_t>(bytes_of(0)));
  windows_.emplace(0, std::move(window));
  used_.push_front(0);
  next_ = 1;
}

size_t ReadWindows::bytes_of(uint64_t number) const {
  return static_cast<size_t>(std::min<uint64_t>(kWindowBytes, size_ - number * kWindowBytes));
}

Result<void> ReadWindows::read(uint64_t offset, MutableByteSpan out) {
  assert(range_within(offset, out.size(), size_));
  while (!out.empty()) {
    const auto found = TRY(window(offset / kWindowBytes));
    const size_t skip = offset % kWindowBytes;
    const size_t part = std::min(out.size(), found->bytes.size() - skip);
    std::copy_n(found->bytes.begin() + static_cast<ptrdiff_t>(skip), part, out.begin());
    offset += part;
    out = out.subspan(part);
  }
  return {};
}

size_t ReadWindows::read_cached(uint64_t offset, MutableByteSpan out) {
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock || offset >= size_) return 0;
  size_t copied = 0;
  while (copied < out.size() && offset + copied < size_) {
    const uint64_t number = (offset + copied) / kWindowBytes;
    const auto found = windows_.find(number);
    if (found == windows_.end() || found->second->bytes.empty()) break;
    use(number);
    const auto& bytes = found->second->bytes;
    const size_t skip = (offset + copied) % kWindowBytes;
    const size_t part = std::min(out.size() - copied, bytes.size() - skip);
    std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(skip), part,
                out.begin() + static_cast<ptrdiff_t>(copied));
    copied += part;
  }
  return copied;
}

// With its bytes.
Result<std::shared_ptr<ReadWindows::Window>> ReadWindows::window(uint64_t number) {
  std::unique_lock lock(mutex_);
  while (true) {
    const auto found = windows_.find(number);
    if (found == windows_.end()) {
      TRY(fetch_from(lock, number));
      continue;
    }
    const std::shared_ptr<Window> window = found->second;
    fetched_.wait(lock, [&] { return !window->bytes.empty() || window->failed; });
    if (window->failed) return Failure(*window->failed);
    use(number);
    return window;
  }
}

// Those from `number` on that nobody has or fetches; more of them while reads go on behind what was
// fetched last.
size_t ReadWindows::count_to_fetch(uint64_t number) {
  const size_t wanted = number == next_ ? std::min(2 * at_once_, kMostAtOnce) : 1;
  const uint64_t end = div_round_up(size_, kWindowBytes);
  size_t count = 1;
  while (count < wanted && number + count < end && !windows_.contains(number + count)) ++count;
  return count;
}

Result<void> ReadWindows::fetch_from(std::unique_lock<std::mutex>& lock, uint64_t number) {
  const size_t count = count_to_fetch(number);
  next_ = number + count;
  at_once_ = count;
  std::vector<std::shared_ptr<Window>> fetching;
  std::list<uint64_t> numbers;
  std::vector<std::byte> all;
  // Memory first: whoever waits for a window must hear how it went.
  auto done = without_exceptions([&]() -> Result<void> {
    size_t bytes = 0;
    for (size_t i = 0; i < count; ++i) {
      numbers.push_back(number + i);
      fetching.push_back(std::make_shared<Window>());
      fetching.back()->bytes.reserve(bytes_of(number + i));
      bytes += bytes_of(number + i);
    }
    all.resize(bytes);
    for (size_t i = 0; i < count; ++i) windows_.emplace(number + i, fetching[i]);
    return {};
  });
  if (done) {
    lock.unlock();
    done = without_exceptions([&] { return fetch_(number * kWindowBytes, all); });
    lock.lock();
  }
  auto part = all.begin();
  for (size_t i = 0; i < fetching.size(); ++i) {
    if (!done) {
      // Not remembered: the next read tries again.
      fetching[i]->failed = done.error();
      windows_.erase(number + i);
      continue;
    }
    const auto end = part + static_cast<ptrdiff_t>(bytes_of(number + i));
    fetching[i]->bytes.assign(part, end);
    part = end;
  }
  if (done) used_.splice(used_.begin(), numbers);
  forget_old();
  fetched_.notify_all();
  return done;
}

void ReadWindows::use(uint64_t number) {
  const auto place = std::ranges::find(used_, number);
  if (place != used_.end()) used_.splice(used_.begin(), used_, place);
}

void ReadWindows::forget_old() {
  while (used_.size() > kKept) {
    windows_.erase(used_.back());
    used_.pop_back();
  }
}

}  // namespace underlay
