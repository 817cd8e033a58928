// The answer to "what lies at this guest offset?".
#pragma once

#include <cstdint>

#include "io/source.h"

namespace underlay {

// A run of guest bytes that lie in one place. A plain value; `source` is owned by the reader that
// answered and lives as long as it.
struct Extent {
  enum class Kind : uint8_t {
    kData,        // stored as they are: source, source_offset
    kZero,        // zeros, proved by the format
    kParent,      // not in this image: the parent's bytes (zeros when there is no parent)
    kCompressed,  // part of a cluster that Reader::load_cluster() unpacks
    kCopied,      // the same, but the reader does not know how the bytes are stored
  };

  Kind kind = Kind::kParent;

  // Must Reader::load_cluster() get the bytes?
  bool is_loaded() const { return kind == Kind::kCompressed || kind == Kind::kCopied; }

  bool reserved = false;  // kZero: space is set aside for it in the file (no hole)
  uint16_t depth = 0;     // set by Disk: 1 = the top image, 2 = its parent, ...; 0 = in no image
  uint64_t length = 0;    // guest bytes from the offset that was asked for, > 0

  // kData, kCompressed; kCopied: where an error is said to be; kZero: null, but for the hole of a
  // file that Disk::map() found there.
  const Source* source = nullptr;
  // kData: where the byte that was asked for lies, of a hole as well. kCompressed: where the stored
  // cluster begins. kCopied: what the reader wants to find there again.
  uint64_t source_offset = 0;

  // kCompressed, kCopied. `length` ends with the cluster at the latest.
  uint64_t cluster_start = 0;   // guest offset of the cluster's first byte
  uint32_t cluster_length = 0;  // bytes it unpacks to
  uint64_t stored_length = 0;   // bytes it takes in the source, at most; 0 when only its head says
};

// How hard map() may try, and what for.
enum class MapFor : uint8_t {
  kReadNow,  // only from memory, never blocks: kWouldBlock when it must load something first
  kRead,     // may block to load metadata
  kStatus,   // may block; Disk::map() also looks for holes of the file system inside stored data
};

}  // namespace underlay
