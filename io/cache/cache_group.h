// One file of the cache, open: a group of blocks of one object.
#pragma once

#include <sys/types.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "io/bytes.h"
#include "io/cache/file_lock.h"
#include "io/cache/group_layout.h"
#include "io/error.h"
#include "io/unique_fd.h"

namespace underlay {

// Thread-safe. The file may be evicted (unlinked) by any process at any time: whoever has it open
// goes on reading the same bytes, and is_evicted() says so. Nothing of it is ever overwritten by
// other bytes, and nothing taken out of it.
class CacheGroup {
 public:
  enum class Make : bool { kNo, kYes };

  // The file `name` in `folder`, whose header must be `header`. One that is damaged is removed.
  // With kYes a file that is not there is made, unless that is forbidden. kNotFound: there is none.
  // kDenied: the file is another object's, whose name is the same by chance.
  static Result<std::shared_ptr<CacheGroup>> open(int folder, const std::string& name,
                                                  const GroupHeader& header, Make make);

  enum class Found : uint8_t { kYes, kNo, kDamaged };
  // Copies `out.size()` bytes of `block`, from `skip` on, if it is here. Checks the digest of all
  // its `length` bytes each time: they may have gone from memory, and come from the disk, which may
  // have lost them. A damaged block is forgotten, and so is one that cannot be read. `out` is undefined unless kYes. May block. REQUIRES: skip + out.size()
  // <= length <= kCacheBlock.
  Result<Found> read(unsigned block, size_t length, size_t skip, MutableByteSpan out);

  // The same without blocking: what is in the page cache, of a block that keep() knows to be right
  // on disk as well. The number of bytes, from the front.
  size_t read_now(unsigned block, size_t skip, MutableByteSpan out);

  // To be called now and then: brings to disk what read() has found right, so that read_now() may
  // have it, and remembers what read_now() used (as touch()). All blocks are forgotten when the
  // disk does not take them. May block.
  Result<void> keep(std::chrono::seconds interval);

  // Is there a digest, so that the block is probably here?
  bool has(unsigned block) const;

  // Puts a block in its place, then its digest. Allowed at any time, also twice, for the bytes of a
  // block are always the same. REQUIRES: bytes.size() <= kCacheBlock.
  Result<void> store(unsigned block, ByteSpan bytes);

  // Who fetches `count` blocks from `first` on, of all processes. See FileLock.
  FileLock lock(unsigned first, unsigned count, std::chrono::milliseconds limit) const;

  bool is_writable() const { return writable_; }
  bool is_evicted() const;
  // Remembers that it was used, unless that was remembered within `interval`.
  void touch(std::chrono::seconds interval);

 private:
  CacheGroup(UniqueFd fd, bool writable);
  Result<Found> read_and_check(unsigned block, MutableByteSpan whole);
  Result<Found> read_block(unsigned block, size_t length, size_t skip, MutableByteSpan out);
  void forget(unsigned block);
  void forget_all();
  Result<void> settle();

  UniqueFd fd_;
  const bool writable_;
  // Bits, one for each block:
  std::atomic<uint64_t> found_right_ = 0;  // by read(), in memory; the disk may not have it
  std::atomic<uint64_t> settled_ = 0;      // on disk as well, since it was found right
  std::atomic<uint64_t> bad_ = 0;          // its digest stands in the file, and is not believed
  std::atomic<bool> used_ = false;         // by read_now(), since keep()
  std::atomic<int64_t> touched_;           // seconds of the steady clock
};

}  // namespace underlay
