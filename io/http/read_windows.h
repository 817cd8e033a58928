// Small reads of a remote object, made into fewer and larger ones: the object is cut into windows,
// which are fetched whole and kept for a while. Reads that follow each other fetch several at once.
#pragma once

#include <condition_variable>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "io/bytes.h"
#include "io/error.h"

namespace underlay {

// Thread-safe. A window is fetched once, however many threads want it.
class ReadWindows {
 public:
  static constexpr size_t kWindowBytes = 64 << 10;
  // Kept, and most fetched at once, of one object: 2 MiB, of which 512 KiB.
  static constexpr size_t kKept = 32;
  static constexpr size_t kMostAtOnce = 8;

  // Fills all of `out` from `offset`, or fails.
  using Fetch = std::function<Result<void>(uint64_t offset, MutableByteSpan out)>;

  // Of an object of `size` bytes. `first`: its first bytes, which are there already.
  ReadWindows(uint64_t size, ByteSpan first, Fetch fetch);

  // Blocks. REQUIRES: the range lies within the object; 0 < out.size() <= kWindowBytes.
  Result<void> read(uint64_t offset, MutableByteSpan out);

  // As Source::read_cached().
  size_t read_cached(uint64_t offset, MutableByteSpan out);

 private:
  // Without bytes, and not failed: somebody fetches it.
  struct Window {
    std::vector<std::byte> bytes;
    std::optional<Error> failed;
  };
  using Windows = std::map<uint64_t, std::shared_ptr<Window>>;  // by number

  Result<std::shared_ptr<Window>> window(uint64_t number);
  Result<void> fetch_from(std::unique_lock<std::mutex>& lock, uint64_t number);
  size_t count_to_fetch(uint64_t number);
  size_t bytes_of(uint64_t number) const;
  void use(uint64_t number);
  void forget_old();

  const uint64_t size_;
  const Fetch fetch_;
  std::mutex mutex_;  // of what follows
  std::condition_variable fetched_;
  Windows windows_;
  std::list<uint64_t> used_;  // those with bytes; the one that was used last comes first
  uint64_t next_ = 0;         // behind what was fetched last
  size_t at_once_ = 1;        // what it was
};

}  // namespace underlay
