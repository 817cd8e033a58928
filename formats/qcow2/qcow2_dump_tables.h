// The tables of a qcow2 image, entry by entry.
#pragma once

#include <string>

#include "formats/inspection/inspector.h"
#include "formats/qcow2/qcow2_layout.h"
#include "io/source.h"

namespace underlay {

// Each fails as the sink does, and when the file cannot be read.
class Qcow2TableDump {
 public:
  // All of them outlive this. REQUIRES: the header's cluster_bits are in their range.
  Qcow2TableDump(const Source& file, const Qcow2Header& header, DumpSink& sink)
      : file_(file), header_(header), sink_(sink) {}

  // The active L1 table, and the L2 tables that it names.
  Result<void> dump_active();
  // A snapshot's L1 table, and those L2 tables that are not the active disk's as well.
  Result<void> dump_snapshot(const std::string& label, const Qcow2L1& l1);
  // The refcount table, and the blocks that it names.
  Result<void> dump_refcounts();
  // `label`: the bitmap's.
  Result<void> dump_bitmap_table(const std::string& label, uint64_t offset, uint64_t bytes);

 private:
  Result<void> dump_l1(const std::string& name, const Qcow2L1& l1);
  Result<void> dump_l2_tables(const std::string& of, const Qcow2L1& l1, bool is_active);
  Result<void> dump_l2(const std::string& name, uint64_t offset);
  Result<void> dump_block(uint64_t index, uint64_t offset);
  Result<bool> is_active_too(uint64_t index, uint64_t entry) const;

  const Source& file_;
  const Qcow2Header& header_;
  DumpSink& sink_;
};

}  // namespace underlay
