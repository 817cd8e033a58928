// One sparse extent of a VMDK image: a file with a grain directory and grain tables.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "formats/extent.h"
#include "formats/metadata.h"
#include "formats/vmdk/vmdk_sparse_file.h"
#include "io/source.h"

namespace underlay {

// Thread-safe. Offsets are bytes from the start of the extent, not of the disk.
class VmdkSparseExtent {
 public:
  // `file` is what the head of `source` says; `sectors` is what the descriptor says of the extent's
  // size, which may be less than the header's capacity. `caches` outlives this. May block: checks
  // that the grain directory and the tables that it names lie in the file. Errors name the file.
  static Result<std::unique_ptr<const VmdkSparseExtent>> open(std::shared_ptr<const Source> source,
                                                              const VmdkSparseFile& file,
                                                              uint64_t sectors, Caches& caches,
                                                              std::vector<std::string>& warnings);

  // As Reader::map(). REQUIRES: length > 0, offset + length <= sectors * 512.
  Result<Extent> map(uint64_t offset, uint64_t length, MapFor purpose) const;

  uint64_t grain_bytes() const { return grain_bytes_; }

  // As Reader::load_cluster(): unpacks the grain at extent offset `grain_start` whose marker lies
  // at `marker` in the file.
  Result<void> load_grain(uint64_t grain_start, uint64_t marker, MutableByteSpan out) const;

 private:
  // Where a grain lies in its table, and where that lies in the file.
  struct TableEntry {
    uint64_t table = 0;  // byte in the file
    uint64_t index = 0;  // below gtes_per_gt
    uint64_t grain_start = 0;
  };

  VmdkSparseExtent(std::shared_ptr<const Source> source, const VmdkGeometry& geometry,
                   uint64_t sectors, Caches& caches);

  Result<void> unpack_grain(uint64_t grain_start, uint64_t marker, MutableByteSpan out) const;
  uint64_t entry_of(const MetadataSlice& slice, uint64_t offset) const;
  uint64_t visible_bytes(uint64_t grain_start) const;
  Extent absent_tables(const MetadataSlice& directory, uint64_t offset, uint64_t length) const;
  bool continues(const MetadataSlice& slice, const TableEntry& first, const VmdkEntry& found,
                 uint64_t count) const;
  Extent extent_of(const VmdkEntry& found, const TableEntry& entry, uint64_t offset) const;

  std::shared_ptr<const Source> source_;
  Metadata metadata_;
  VmdkGeometry geometry_;
  uint64_t size_;           // bytes of the extent
  uint64_t grain_bytes_;    // of one grain
  uint64_t covered_bytes_;  // of the guest's that one grain table maps
  uint64_t entry_bytes_;
  uint64_t directory_;  // byte in the file
};

}  // namespace underlay
