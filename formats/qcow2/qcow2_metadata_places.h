// Where an image's metadata lies, so that none of it is shown as data or taken for other metadata.
#pragma once

#include <vector>

#include "formats/file_range.h"
#include "formats/metadata.h"
#include "formats/qcow2/qcow2_entries.h"
#include "formats/qcow2/qcow2_layout.h"

namespace underlay {

// The header, L1 tables, the refcount table with its blocks, the start of the snapshot table, and
// the L2 tables that were added. Costs 8 bytes for each block and each L2 table. Immutable while it
// is asked, so from any thread.
class Qcow2MetadataPlaces {
 public:
  // `l1`: of what is served, besides the header's.
  Qcow2MetadataPlaces(const Qcow2Header& header, const Qcow2L1& l1);

  // Adds the refcount blocks. Reads at most kMaxRefcountTableBytes of the refcount table, whose
  // entries for no whole cluster of the file are passed over: they are for writers. May block.
  Result<void> add_refcount_blocks(const Metadata& tables);
  static constexpr uint64_t kMaxRefcountTableBytes = 64
                                                     << 10;  // blocks of 16 TiB in 64 KiB clusters

  void add_l2_table(uint64_t offset) { l2_tables_.push_back(offset); }
  // To be called when all were added.
  void sort_l2_tables();

  // May no L2 table lie in the cluster at `offset`?
  bool hold_other_than_l2(uint64_t offset) const;
  // May no data lie there?
  bool hold(uint64_t offset) const;

 private:
  uint64_t cluster_size_;
  FileRange refcounts_;
  std::vector<FileRange> ranges_;
  std::vector<uint64_t> refcount_blocks_;  // sorted
  std::vector<uint64_t> l2_tables_;        // sorted
};

}  // namespace underlay
