// The entries of qcow2's tables, as docs/interop/qcow2.txt (QEMU) specifies them: words in, checked
// values out; or the same unchecked, for those who look into damaged images.
//
// L1 entry ("L1 table entry"):     63 copied | 62-56 reserved | 55-9 offset of L2 | 8-0 reserved
// L2 entry ("L2 table entry"):     63 copied | 62 compressed | 61-0 descriptor
//   standard cluster descriptor:   61-56 reserved | 55-9 offset of cluster | 8-1 reserved | 0 zeros
//   compressed cluster descriptor: 61-x sectors behind the first | (x-1)-0 offset in bytes,
//                                  x = 62 - (cluster_bits - 8)
//   extended L2 ("Extended L2 Entries") adds 8 bytes: 63-32 subcluster reads as zeros | 31-0
//   subcluster is allocated. Bit 0 of its first half is reserved.
//
// Refcount table entry ("Refcount table entry"):  63-9 offset of block | 8-0 reserved
#pragma once

#include <cstdint>

#include "formats/qcow2/qcow2_layout.h"

namespace underlay {

// What the bits of an L1 entry are.
struct Qcow2L1Bits {
  bool copied = false;
  uint64_t offset = 0;    // of the L2 table; 0: there is none
  uint64_t reserved = 0;  // those that are set
};
Qcow2L1Bits split_qcow2_l1_entry(uint64_t entry);

// What the bits of an L2 entry are.
struct Qcow2L2Bits {
  bool copied = false;
  bool compressed = false;
  bool zeros = false;          // bit 0 of a standard cluster; with extended L2 entries reserved
  uint64_t offset = 0;         // of the cluster, or of the first byte of the stream
  uint64_t stored_length = 0;  // compressed: bytes of whole sectors
  uint64_t reserved = 0;       // of those between: the ones that are set
  uint64_t bitmap = 0;         // of subclusters
  uint32_t zero_parts() const { return static_cast<uint32_t>(bitmap >> 32); }
  uint32_t stored_parts() const { return static_cast<uint32_t>(bitmap); }
};
// `bitmap`: the second half of an extended L2 entry, else 0.
Qcow2L2Bits split_qcow2_l2_entry(const Qcow2Header& header, uint64_t entry, uint64_t bitmap);

// Has a cluster of its own in the file, or in the data file, set aside at least.
bool has_place(const Qcow2Header& header, const Qcow2L2Bits& bits);

struct Qcow2RefcountTableBits {
  uint64_t offset = 0;  // of the block of refcounts; 0: there is none
  uint64_t reserved = 0;
};
Qcow2RefcountTableBits split_qcow2_refcount_table_entry(uint64_t entry);

// Where the L2 table of an L1 entry lies, a multiple of the cluster size; 0 when there is none.
Result<uint64_t> parse_qcow2_l1_entry(const Qcow2Header& header, uint64_t entry);

// One cluster, in kSubclusters parts. Without extended L2 entries all parts are alike.
struct Qcow2Cluster {
  static constexpr uint32_t kSubclusters = 32;

  bool compressed = false;     // then host_offset and stored_length tell all
  bool reserved = false;       // has a place of its own in the file, also where it reads as zeros
  uint32_t stored = 0;         // bit i: part i is data, at its place in the host cluster
  uint32_t zeros = 0;          // bit i: part i is zeros. In neither mask: the backing file's
  uint64_t host_offset = 0;    // of the cluster; compressed: of the first byte of the stream
  uint64_t stored_length = 0;  // compressed: bytes of whole sectors, may reach past the file's end
};

// `guest_offset`: of the cluster's first byte. `bitmap`: the second half of an extended L2 entry.
Result<Qcow2Cluster> parse_qcow2_l2_entry(const Qcow2Header& header, uint64_t guest_offset,
                                          uint64_t entry, uint64_t bitmap);

}  // namespace underlay
