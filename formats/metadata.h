// Tables of an image (L1, L2, BAT, grain tables, bitmaps), read through the table cache in slices:
// memory does not grow with the image, and no table is loaded whole because a header says so.
#pragma once

#include <cassert>
#include <memory>

#include "formats/block_cache.h"
#include "formats/extent.h"
#include "io/source.h"

namespace underlay {

// Bytes [start, start + size) of a file, held in memory. Offsets are the file's.
class MetadataSlice {
 public:
  MetadataSlice(BlockCache::Handle bytes, uint64_t start)
      : bytes_(std::move(bytes)), start_(start) {}

  uint64_t end() const { return start_ + bytes_->size(); }
  // Is the entry of `width` bytes at file offset `offset` in this slice?
  bool holds(uint64_t offset, size_t width) const {
    return offset >= start_ && range_within(offset - start_, width, bytes_->size());
  }
  // REQUIRES: holds(offset, sizeof(T)).
  template <class T>
  T be(uint64_t offset) const {
    return load_be<T>(*bytes_, static_cast<size_t>(offset - start_));
  }
  template <class T>
  T le(uint64_t offset) const {
    return load_le<T>(*bytes_, static_cast<size_t>(offset - start_));
  }

 private:
  BlockCache::Handle bytes_;
  uint64_t start_;
};

// Thread-safe.
class Metadata {
 public:
  // `caches` outlives this.
  Metadata(Caches& caches, std::shared_ptr<const Source> source)
      : caches_(caches), source_(std::move(source)), owner_(caches.new_owner()) {}

  // The slice that holds the entry of `width` bytes at file offset `offset`, and its neighbours up
  // to a multiple of kSliceBytes. kWouldBlock under kReadNow when it is not in memory; kTruncated
  // when the entry lies beyond the end of the file.
  // REQUIRES: width is a power of two and divides offset, so that no entry lies in two slices.
  Result<MetadataSlice> slice_at(uint64_t offset, size_t width, MapFor purpose) const;

  const Source& source() const { return *source_; }

  static constexpr uint64_t kSliceBytes = 16 << 10;

 private:
  Caches& caches_;
  std::shared_ptr<const Source> source_;
  uint64_t owner_;
};

}  // namespace underlay
