// What a qcow2 image has beside its mapping: snapshot table, bitmaps, LUKS header, refcount table
// and blocks. What they use, and what is wrong in them.
#pragma once

#include <vector>

#include "formats/qcow2/qcow2_check_pass.h"
#include "formats/qcow2/qcow2_refcounts.h"

namespace underlay {

// The L1 table of one or more snapshots.
struct Qcow2SnapshotL1 {
  Qcow2L1 l1;
  uint64_t times = 0;  // how many snapshots have it
  uint64_t named_at = 0;
};

// Those that can be walked.
std::vector<Qcow2SnapshotL1> check_qcow2_snapshots(Qcow2CheckPass& pass);

void check_qcow2_luks_header(Qcow2CheckPass& pass, ByteSpan pointer);

// `extension`: the bitmaps extension's bytes, empty for none. Fails when the operator breaks off.
Result<void> check_qcow2_bitmaps(Qcow2CheckPass& pass, ByteSpan extension);

// To be called last: nothing else may use a block of refcounts.
void check_qcow2_refcount_blocks(Qcow2CheckPass& pass, const Qcow2References& references,
                                 const Qcow2Refcounts& refcounts);

}  // namespace underlay
