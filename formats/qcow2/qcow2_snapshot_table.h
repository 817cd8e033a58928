// The snapshot table of a qcow2 image, entry by entry.
#pragma once

#include <string_view>
#include <vector>

#include "formats/qcow2/qcow2_layout.h"
#include "io/source.h"

namespace underlay {

struct Qcow2SnapshotEntry {
  uint64_t offset = 0;  // in the file
  Qcow2Snapshot fixed;
  // Until the next call.
  ByteSpan extra;
  std::string_view id;
  std::string_view name;
};

// Walks the table. `file` and `header` outlive it.
class Qcow2SnapshotTable {
 public:
  Qcow2SnapshotTable(const Source& file, const Qcow2Header& header)
      : file_(file), start_(header.snapshots_offset), at_(start_), left_(header.nb_snapshots) {}

  bool at_end() const { return left_ == 0; }

  // REQUIRES: !at_end(). Not to be called again after a failure.
  Result<Qcow2SnapshotEntry> next();

  // Bytes of the entries so far.
  uint64_t bytes() const { return at_ - start_; }

 private:
  Result<Qcow2SnapshotEntry> parse_entry();
  Result<void> check_present(uint64_t length) const;

  const Source& file_;
  uint64_t start_;
  uint64_t at_;
  uint32_t left_;
  std::vector<std::byte> variable_;
};

}  // namespace underlay
