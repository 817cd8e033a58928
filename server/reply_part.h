// A part of a read's reply that is sent from where it lies, without a copy.
#pragma once

#include "formats/block_cache.h"
#include "formats/extent.h"

namespace underlay {

struct ReplyPart {
  Extent extent;               // kZero; kData in a file's pages in memory; what is_loaded()
  uint64_t offset = 0;         // guest offset of its first byte
  BlockCache::Handle cluster;  // is_loaded(): what to send from, null until it is there

  bool is_ready() const { return !extent.is_loaded() || cluster != nullptr; }
};

}  // namespace underlay
