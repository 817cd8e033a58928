// A disk: the guest-visible content of a chain of images, and the one read that turns extents into
// bytes for all formats.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "formats/reader.h"

namespace underlay {

// One image of a chain.
struct Layer {
  std::unique_ptr<const Reader> reader;
  std::string path;
  std::string_view format = {};  // Format::name
};

// Parts of a read that are known to be zeros, so that a reply may send them as holes. A fixed
// number: no allocation on the read path.
class ZeroRuns {
 public:
  struct Run {
    uint64_t offset = 0;  // from the start of the read
    uint64_t length = 0;
  };
  // False when it is full or the run is too short to be worth a hole: fill the buffer then. Runs
  // come in ascending order; neighbours are joined.
  bool add(uint64_t offset, uint64_t length);
  void clear() { count_ = base_ = 0; }
  // For a read in several parts: the next part begins `base` bytes into the whole, and what is
  // added counts from there.
  void begin_part(uint64_t base) { base_ = base; }
  const Run* begin() const { return runs_.data(); }
  const Run* end() const { return runs_.data() + count_; }

  static constexpr size_t kMaxRuns = 64;
  static constexpr uint64_t kMinLength = 4096;

 private:
  std::array<Run, kMaxRuns> runs_;
  size_t count_ = 0;
  uint64_t base_ = 0;
};

// Thread-safe.
class Disk {
 public:
  // `layers`: the image, its parent, that one's parent, ...; at least one. The disk begins `start`
  // bytes into them. `caches` outlives the disk. REQUIRES: start <= the top image's size.
  Disk(std::vector<Layer> layers, Caches& caches, uint64_t start = 0);

  // Bytes: the top image's size from the start on, rounded up to kSectorBytes (zeros behind the
  // end), because the kernel's nbd would lose a smaller tail.
  uint64_t size() const { return size_; }
  uint64_t unpadded_size() const { return layers_.front().reader->size() - start_; }
  static constexpr uint64_t kSectorBytes = 512;

  const std::vector<Layer>& layers() const { return layers_; }

  // As Reader::map(), of the whole chain: never kParent, `depth` set. Under kStatus, a hole of the
  // file system inside stored data is kZero, not reserved.
  // REQUIRES: length > 0, offset + length <= size().
  Result<Extent> map(uint64_t offset, uint64_t length, MapFor purpose) const;

  // Fills all of `out` from `offset`, or fails. May block. With `zeros`, runs of zeros may be
  // noted there instead of being written to `out`.
  // REQUIRES: offset + out.size() <= size().
  Result<void> read(uint64_t offset, MutableByteSpan out, ZeroRuns* zeros = nullptr) const;

  // Fills the front of `out` from `offset` with what is in memory already; never blocks. Returns
  // the number of bytes that are done: fewer than out.size() when something must be loaded first,
  // or failed (read() tells then). `zeros` as in read().
  // REQUIRES: offset + out.size() <= size().
  size_t read_from_memory(uint64_t offset, MutableByteSpan out, ZeroRuns* zeros = nullptr) const;

  // Brings what [offset, offset + length) needs into memory: tables, pages of the files, unpacked
  // clusters. May block.
  Result<void> prefetch(uint64_t offset, uint64_t length) const;

  // Of that, only the unpacked clusters: what file systems read ahead by themselves is left alone.
  Result<void> unpack(uint64_t offset, uint64_t length) const;

  // For kCompressed and kCopied extents that map() gave: their cluster, null when it is not in
  // memory (never blocks)...
  BlockCache::Handle find_unpacked(const Extent& extent) const;
  // ...or unpacked now (may block).
  Result<BlockCache::Handle> unpacked(const Extent& extent) const;
  // The extent's bytes in that cluster; `offset` is what map() was asked for.
  ByteSpan part_of_cluster(const BlockCache::Bytes& cluster, const Extent& extent,
                           uint64_t offset) const;

  Caches& caches() const { return caches_; }

  // Somebody has taken `bytes` of an extent that map() gave to a client by another way than read()
  // and read_from_memory().
  void note_read(const Extent& extent, uint64_t bytes) const {
    layer_bytes_[extent.depth - 1u].fetch_add(bytes, std::memory_order_relaxed);
  }
  // Stored bytes of that layer that were read, zeros not among them. REQUIRES: layer <
  // layers().size().
  uint64_t bytes_read(size_t layer) const { return layer_bytes_[layer]; }

  // Fails when the content of a file of the chain is no longer what was opened. May block.
  Result<void> check_unchanged() const;
  // The next check_unchanged() goes by nothing that was seen before.
  void look_again() const;
  // Do some reads wait for another machine?
  bool is_far() const;
  // A file of the chain whose name now leads to another file (or nowhere), or null. May block.
  const Source* find_replaced() const;

 private:
  Result<Extent> resolve(uint64_t offset, uint64_t length, MapFor purpose) const;
  Result<Extent> map_first(uint64_t offset, uint64_t length, MapFor purpose) const;
  std::optional<ExtentCache::Run> run_around(uint64_t offset, uint64_t size, MapFor purpose) const;
  uint64_t large_unit(uint64_t offset) const;
  BlockCache::Key cluster_key(const Extent& extent) const;

  std::vector<Layer> layers_;
  std::vector<uint64_t> cluster_owners_;  // one for each layer
  mutable std::vector<std::atomic<uint64_t>> layer_bytes_;
  Caches& caches_;
  uint64_t start_;
  uint64_t size_;
  uint64_t extent_owner_;  // of this disk's runs in caches_.extents
  uint64_t unit_ = 0;      // bytes that one of them is put for; 0: they are not worth it
};

}  // namespace underlay
