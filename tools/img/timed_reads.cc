#include "tools/img/timed_reads.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "tools/common/interruption.h"

namespace underlay::img {
namespace {

using Clock = std::chrono::steady_clock;

// splitmix64: the same numbers everywhere, for any index at once.
uint64_t scrambled(uint64_t value) {
  value += 0x9e3779b97f4a7c15;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

class Run {
 public:
  Run(const Disk& disk, const TimedReads& reads) : disk_(disk), reads_(reads) {}

  Result<TimedReadsEnd> all() {
    const auto begun = Clock::now();
    {
      std::vector<std::jthread> threads;
      for (unsigned i = 0; i < reads_.depth; ++i) {
        try {
          threads.emplace_back([this] { work(); });
        } catch (const std::system_error& error) {
          is_over_ = true;
          return fail_errno(error.code().value(), "cannot have {} threads, only {}", reads_.depth,
                            threads.size());
        }
      }
    }
    end_.time = Clock::now() - begun;
    return std::move(end_);
  }

 private:
  void work() {
    LatencyHistogram latencies;
    auto worked = without_exceptions([&] { return read_on(latencies); });
    const std::lock_guard lock(mutex_);
    end_.latencies.add_all(latencies);
    end_.done = end_.latencies.count();
    if (!worked && !end_.failure) end_.failure = std::move(worked).error();
    if (!worked) is_over_ = true;
  }

  Result<void> read_on(LatencyHistogram& latencies) {
    const auto buffer = std::make_unique_for_overwrite<std::byte[]>(reads_.length);
    const MutableByteSpan bytes(buffer.get(), static_cast<size_t>(reads_.length));
    uint64_t index = 0;
    while (!is_over_ && (index = next_.fetch_add(1)) < reads_.count) {
      if (is_interrupted()) {
        const std::lock_guard lock(mutex_);
        end_.interrupted = true;
        return {};
      }
      const uint64_t offset = offset_of(index);
      if (!range_within(offset, reads_.length, disk_.size())) {
        return fail(ErrorKind::kUsage,
                    "{} bytes at {} lie beyond the end of the disk, which has {}", reads_.length,
                    offset, disk_.size());
      }
      const auto begun = Clock::now();
      TRY(disk_.read(offset, bytes));
      latencies.add(Clock::now() - begun);
    }
    return {};
  }

  uint64_t offset_of(uint64_t index) const {
    const uint64_t size = disk_.size();
    if (reads_.seed) {
      const uint64_t places = size <= reads_.offset ? 0 : (size - reads_.offset) / reads_.length;
      if (places == 0) return reads_.offset;
      return reads_.offset + scrambled(*reads_.seed + index) % places * reads_.length;
    }
    if (index == 0 || size == 0) return reads_.offset;
    // Fits: index and step are below 2^31 each, and a disk below 2^63.
    return (reads_.offset % size + index * reads_.step) % size;
  }

  const Disk& disk_;
  const TimedReads& reads_;
  std::atomic<uint64_t> next_ = 0;
  std::atomic<bool> is_over_ = false;  // no more reads are begun
  std::mutex mutex_;
  TimedReadsEnd end_;
};

}  // namespace

Result<TimedReadsEnd> run_timed_reads(const Disk& disk, const TimedReads& reads) {
  return Run(disk, reads).all();
}

}  // namespace underlay::img
