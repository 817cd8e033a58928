// One sparse extent of a VMDK image: a file with a grain directory and grain tables.
#pragma once

#include <array>
#include <memory>

#include "formats/extent.h"
#include "formats/file_range.h"
#include "formats/metadata.h"
#include "formats/vmdk_layout.h"
#include "io/source.h"

namespace underlay {

// The header of a sparse extent; that of its footer when the first one says so. May block. Errors
// name the file.
Result<VmdkSparseHeader> read_vmdk_sparse_header(const Source& source);

// Thread-safe. Offsets are bytes from the start of the extent, not of the disk.
class VmdkSparseExtent {
 public:
  // `header` is that of `source`; `sectors` is what the descriptor says of the extent's size, which
  // may be less than the header's capacity. `caches` outlives this. May block: checks that the
  // grain directory and the tables that it names lie in the file. Errors name the file.
  static Result<std::unique_ptr<const VmdkSparseExtent>> open(std::shared_ptr<const Source> source,
                                                              const VmdkSparseHeader& header,
                                                              uint64_t sectors, Caches& caches);

  // As Reader::map(). REQUIRES: length > 0, offset + length <= sectors * 512.
  Result<Extent> map(uint64_t offset, uint64_t length, MapFor purpose) const;

  uint64_t grain_bytes() const { return grain_bytes_; }

  // As Reader::load_cluster(): unpacks the grain at extent offset `grain_start` whose marker lies
  // at `marker` in the file.
  Result<void> load_grain(uint64_t grain_start, uint64_t marker, MutableByteSpan out) const;

 private:
  Result<void> unpack_grain(uint64_t grain_start, uint64_t marker, MutableByteSpan out) const;

  // Where a grain lies in its table, and where that lies in the file.
  struct TableEntry {
    uint64_t table = 0;  // byte in the file
    uint64_t index = 0;  // below kVmdkGtesPerGt
    uint64_t grain_start = 0;
  };
  enum class Placement : uint8_t { kGood, kInMetadata, kBeyondEnd };

  VmdkSparseExtent(std::shared_ptr<const Source> source, const VmdkSparseHeader& header,
                   uint64_t sectors, Caches& caches);

  Result<void> check_directory() const;
  Result<void> check_table(uint64_t number, uint32_t sector) const;
  bool in_metadata(const FileRange& range) const;
  Placement placement(const TableEntry& entry, uint32_t sector) const;
  Result<void> check_grain(const TableEntry& entry, uint32_t sector) const;
  Extent absent_tables(const MetadataSlice& directory, uint64_t offset, uint64_t length) const;
  bool continues(const MetadataSlice& slice, const TableEntry& first, uint64_t count) const;
  Extent extent_of(uint32_t sector, const TableEntry& entry, uint64_t offset) const;
  uint64_t tables() const;

  std::shared_ptr<const Source> source_;
  Metadata metadata_;
  VmdkSparseHeader header_;
  uint64_t size_;                             // bytes of the extent
  uint64_t grain_bytes_;                      // of one grain
  uint64_t table_bytes_;                      // of the guest's that one grain table maps
  uint64_t directory_;                        // byte in the file
  std::array<FileRange, 3> metadata_ranges_;  // where no grain can lie
};

}  // namespace underlay
