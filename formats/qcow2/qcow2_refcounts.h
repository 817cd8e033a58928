// The reference counts that a qcow2 image keeps of its clusters.
//
// Refcount table (docs/interop/qcow2.txt, "Host cluster management"): 8 bytes for each block of
// refcounts, which is a cluster. A refcount has 2^refcount_order bits; those of less than a byte
// begin with the least significant bits of it.
#pragma once

#include <optional>

#include "formats/metadata.h"
#include "formats/qcow2/qcow2_entries.h"

namespace underlay {

// Not thread-safe. Reads the table and its blocks where they are, without keeping more than the
// cache does.
class Qcow2Refcounts {
 public:
  static constexpr uint64_t kMaxTableBytes = 8 << 20;  // QEMU's limit

  // Fails when the header's fields about refcounts cannot be.
  static Result<void> check_header(const Qcow2Header& header);

  // REQUIRES: check_header(header). `caches` outlives this.
  Qcow2Refcounts(std::shared_ptr<const Source> file, Caches& caches, const Qcow2Header& header)
      : header_(header),
        block_bits_(header.cluster_bits + 3 - header.refcount_order),
        bytes_(caches, std::move(file)) {}

  uint64_t table_entries() const { return table_bytes(header_) / 8; }
  static uint64_t table_bytes(const Qcow2Header& header) {
    return header.refcount_table_clusters * header.cluster_size();
  }
  uint64_t entry_offset(uint64_t index) const { return header_.refcount_table_offset + index * 8; }
  uint64_t block_clusters() const { return uint64_t{1} << block_bits_; }
  // The greatest number that a refcount can be.
  uint64_t max() const { return ~uint64_t{0} >> (64 - (uint32_t{1} << header_.refcount_order)); }

  // 0 where the file has ended. REQUIRES: index < table_entries().
  Result<Qcow2RefcountTableBits> entry(uint64_t index) const;

  // 0 where there is no block, or the file has ended. Fails when the table names a block where none
  // can be, and when it cannot be read.
  Result<uint64_t> at(uint64_t cluster);

 private:
  Result<uint64_t> load(uint64_t offset, uint32_t shift);

  const Qcow2Header header_;
  const uint32_t block_bits_;  // of block_clusters()
  const Metadata bytes_;
  // The last one that was asked for: neighbours are asked for one after the other.
  std::optional<uint64_t> index_;
  uint64_t block_ = 0;
  std::optional<MetadataSlice> slice_;
};

}  // namespace underlay
