// A source: bytes at offsets, read-only. A file, a block device, memory. Knows nothing of images.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>

#include "io/bytes.h"
#include "io/error.h"

namespace underlay {

// Which file this is, however it was named; finds loops in chains.
struct FileIdentity {
  dev_t device = 0;
  ino_t inode = 0;
  uint64_t start = 0;  // of a part of a file: its first byte
  bool operator==(const FileIdentity&) const = default;
};

// What the file system (or the server of an export) says of a range: a hole, which reads as zeros,
// or data.
struct SourceRun {
  bool hole = false;
  uint64_t length = 0;    // bytes from the offset that was asked for, > 0
  bool reserved = false;  // of a hole: space is set aside for it
};

class Source;

// A byte of a source.
struct SourcePlace {
  const Source* source = nullptr;
  uint64_t offset = 0;
};

// Thread-safe: all methods may be called from any thread at the same time. The content is taken to
// be immutable while it is served; check_unchanged() notices when it is not.
class Source {
 public:
  Source() = default;
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;
  virtual ~Source() = default;

  // For messages: a path as the operator knows it.
  virtual const std::string& name() const = 0;

  // Bytes, fixed when the source was opened.
  virtual uint64_t size() const = 0;

  // Fills all of `out` from `offset`, or fails; never a part. May block. Retries what is transient.
  // Past the end: kTruncated. Errors name the file and the offset.
  virtual Result<void> read_at(uint64_t offset, MutableByteSpan out) const = 0;

  // Copies what is in memory already into the front of `out`; never blocks. Returns the number of
  // bytes copied, 0 when nothing is known without waiting. Not a failure: read_at() decides that.
  virtual size_t read_cached(uint64_t offset, MutableByteSpan out) const {
    (void)offset, (void)out;
    return 0;
  }

  // Are these bytes in memory, so that reading or sending them would not block? False when that is
  // not known. Never blocks. REQUIRES: offset + length <= size(), length > 0.
  virtual bool in_memory(uint64_t offset, uint64_t length) const {
    (void)offset, (void)length;
    return false;
  }

  // A file descriptor whose bytes at equal offsets are this source's, for a ring to read from;
  // valid while the source lives. nullopt: only read_at() can read.
  virtual std::optional<int> fd() const { return std::nullopt; }

  // Where the bytes from `offset` on are stored as they are: here, or in a source that this one is
  // a part of (from there on it has all of this one's bytes).
  virtual SourcePlace place_of(uint64_t offset) const { return {.source = this, .offset = offset}; }

  // The file that all bytes come from, as they are or packed: its name, times and identity are what
  // tells whether it changed. Lives as long as this source.
  virtual const Source& file() const { return *this; }

  // Starts to bring [offset, offset + length) into memory. A hint: failures are ignored. May block.
  virtual void prefetch(uint64_t offset, uint64_t length) const { (void)offset, (void)length; }

  // Hole or data at `offset`, and for how far, at most `length`. May block. Data whenever unsure.
  // REQUIRES: offset + length <= size(), length > 0.
  virtual SourceRun run_at(uint64_t offset, uint64_t length) const {
    (void)offset;
    return {.hole = false, .length = length};
  }

  // Fails when the content is no longer what was opened (size, modification time). May block.
  virtual Result<void> check_unchanged() const { return {}; }

  // check_unchanged() is to look anew the next time, where it goes on what it saw a while ago.
  virtual void look_again() const {}

  // Do reads wait for another machine, which may not answer?
  virtual bool is_far() const { return false; }

  // True when the name now leads to another file or to none: this source goes on with the one that
  // was opened. May block.
  virtual bool was_replaced() const { return false; }

  // What the bytes are, beyond this process and this machine: the same string (with the same size)
  // means the same bytes, for ever. So everything is in it that the content depends on, an address
  // and a version or a strong ETag, say, and no password: it is stored and shown. nullopt when
  // nobody vouches for that; then nothing that is read may be kept for longer than this source.
  virtual std::optional<std::string> content_id() const { return std::nullopt; }

  // Where the bytes are, for all processes and machines: two places have two names. Without
  // passwords, for it is stored and shown. "" when that cannot be said.
  virtual std::string lasting_name() const { return name(); }

  // As read_at(), for who keeps the bytes (a cache above this source): nothing of them is kept
  // here, and no more is fetched.
  virtual Result<void> fetch_at(uint64_t offset, MutableByteSpan out) const {
    return read_at(offset, out);
  }

  // nullopt for what is no file.
  virtual std::optional<FileIdentity> identity() const { return std::nullopt; }
};

}  // namespace underlay
