// Gives out the clusters of a new qcow2 image, one behind the other, and writes their refcounts.
//
//   cluster 0    header
//   cluster 1    refcount block of the first range of clusters
//   ...          whatever is taken; the first cluster of each further range is its refcount block
//   at the end   the L1 table, the refcount table, and what refcount blocks are still missing
//
// A range is what one refcount block counts. So all is written once, in order, and in memory are
// one block and the tables.
#pragma once

#include <cstdint>
#include <vector>

#include "formats/writing/sink.h"

namespace underlay {

// Used by one thread.
class Qcow2Allocator {
 public:
  static constexpr uint64_t kMaxTableBytes = 8 << 20;  // QEMU's limit of the refcount table
  static constexpr uint64_t kRefcountBytes = 2;        // refcount_order 4

  // `sink` outlives this.
  Qcow2Allocator(uint64_t cluster_size, Sink& sink);

  // The next cluster: its byte in the file. kLimit when the refcounts cannot count it.
  Result<uint64_t> take_cluster();

  // Room for a compressed stream of fewer bytes than a cluster has, behind the one before where it
  // fits: its byte in the file.
  Result<uint64_t> take_bytes(uint64_t length);

  // What stands behind all others, and the refcounts of everything, which are written now. The
  // caller writes the L1 table of `l1_bytes` bytes. Nothing is taken any more. REQUIRES: l1_bytes >
  // 0.
  struct End {
    uint64_t l1_offset = 0;
    uint64_t refcount_table_offset = 0;
    uint32_t refcount_table_clusters = 0;
    uint64_t file_size = 0;
  };
  Result<End> finish(uint64_t l1_bytes);

 private:
  uint64_t counts_in_block() const { return cluster_size_ / kRefcountBytes; }
  Result<void> begin_range();
  void add_reference(uint64_t cluster);
  Result<void> write_block();

  const uint64_t cluster_size_;
  Sink& sink_;
  uint64_t next_ = 1;            // cluster
  std::vector<uint64_t> table_;  // where the blocks are, the last one for `block_`
  std::vector<std::byte> block_;
  uint64_t stream_end_ = 0;  // byte behind the last stream; room is left in its cluster. 0: none
};

}  // namespace underlay
