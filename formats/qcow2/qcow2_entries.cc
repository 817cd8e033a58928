#include "formats/qcow2/qcow2_entries.h"

namespace underlay {
namespace {

// The drawings in the header file.
constexpr uint64_t kOffsetMask = 0x00ff'ffff'ffff'fe00;
constexpr uint64_t kL1Reserved = 0x7f00'0000'0000'01ff;
constexpr uint64_t kL2Reserved = 0x3f00'0000'0000'01fe;
constexpr uint64_t kRefcountTableReserved = 0x1ff;
constexpr uint64_t kCopied = uint64_t{1} << 63;
constexpr uint64_t kCompressed = uint64_t{1} << 62;
constexpr uint64_t kZeroFlag = 1;
constexpr uint64_t kHostOffsetBits = 56;

constexpr uint32_t kCompressedSectorBytes = 512;

Failure malformed_cluster(uint64_t entry, uint64_t guest_offset, std::string_view what) {
  return fail(ErrorKind::kMalformed, "L2 entry {:#x} of guest offset {}: {}", entry, guest_offset,
              what);
}

Result<Qcow2Cluster> parse_compressed(const Qcow2Header& header, uint64_t guest_offset,
                                      uint64_t entry) {
  if (header.external_data()) {
    return malformed_cluster(entry, guest_offset,
                             "a compressed cluster, which an image with a data file cannot have");
  }
  const Qcow2L2Bits bits = split_qcow2_l2_entry(header, entry, 0);
  Qcow2Cluster cluster;
  cluster.compressed = true;
  cluster.host_offset = bits.offset;
  cluster.stored_length = bits.stored_length;
  if (cluster.host_offset >> kHostOffsetBits != 0) {
    return malformed_cluster(entry, guest_offset,
                             "its compressed data has an offset of more than 56 bits");
  }
  if (cluster.host_offset < header.cluster_size()) {
    return malformed_cluster(entry, guest_offset,
                             "its compressed data lies in the header's cluster");
  }
  return cluster;
}

// Which subclusters are what.
Result<Qcow2Cluster> with_subclusters(Qcow2Cluster cluster, const Qcow2L2Bits& bits, uint64_t entry,
                                      uint64_t guest_offset) {
  cluster.stored = bits.stored_parts();
  cluster.zeros = bits.zero_parts();
  if ((cluster.stored & cluster.zeros) != 0) {
    return malformed_cluster(entry, guest_offset, "a subcluster is both allocated and zeros");
  }
  if (cluster.stored != 0 && !cluster.reserved) {
    return malformed_cluster(entry, guest_offset,
                             "subclusters are allocated, but the cluster is not");
  }
  return cluster;
}

}  // namespace

Qcow2L1Bits split_qcow2_l1_entry(uint64_t entry) {
  return {.copied = (entry & kCopied) != 0,
          .offset = entry & kOffsetMask,
          .reserved = entry & kL1Reserved};
}

Qcow2L2Bits split_qcow2_l2_entry(const Qcow2Header& header, uint64_t entry, uint64_t bitmap) {
  Qcow2L2Bits bits;
  bits.copied = (entry & kCopied) != 0;
  bits.compressed = (entry & kCompressed) != 0;
  bits.bitmap = bitmap;
  if (!bits.compressed) {
    bits.zeros = (entry & kZeroFlag) != 0;
    bits.offset = entry & kOffsetMask;
    bits.reserved = entry & kL2Reserved;
    return bits;
  }
  const uint32_t sector_field_bits = header.cluster_bits - 8;
  const uint32_t offset_bits = 62 - sector_field_bits;
  const uint64_t sectors = ((entry & ~(kCopied | kCompressed)) >> offset_bits) + 1;
  bits.offset = entry & ((uint64_t{1} << offset_bits) - 1);
  bits.stored_length = sectors * kCompressedSectorBytes - bits.offset % kCompressedSectorBytes;
  return bits;
}

// In a data file offset 0 is a place as any other; "copied" then tells that it is meant.
bool has_place(const Qcow2Header& header, const Qcow2L2Bits& bits) {
  return bits.offset != 0 || (header.external_data() && bits.copied);
}

Qcow2RefcountTableBits split_qcow2_refcount_table_entry(uint64_t entry) {
  return {.offset = entry & ~kRefcountTableReserved, .reserved = entry & kRefcountTableReserved};
}

Result<uint64_t> parse_qcow2_l1_entry(const Qcow2Header& header, uint64_t entry) {
  const Qcow2L1Bits bits = split_qcow2_l1_entry(entry);
  if (bits.reserved != 0) {
    return fail(ErrorKind::kMalformed, "L1 entry {:#x} has reserved bits set: it is damaged",
                entry);
  }
  if (!is_aligned(bits.offset, header.cluster_size())) {
    return fail(ErrorKind::kMalformed,
                "L1 entry {:#x} names an L2 table at no multiple of {} (a cluster): it is damaged",
                entry, header.cluster_size());
  }
  return bits.offset;
}

Result<Qcow2Cluster> parse_qcow2_l2_entry(const Qcow2Header& header, uint64_t guest_offset,
                                          uint64_t entry, uint64_t bitmap) {
  const Qcow2L2Bits bits = split_qcow2_l2_entry(header, entry, bitmap);
  if (bits.compressed) return parse_compressed(header, guest_offset, entry);
  if (bits.reserved != 0 || (bits.zeros && header.extended_l2())) {
    return malformed_cluster(entry, guest_offset, "has reserved bits set");
  }
  if (bits.zeros && header.version < 3) {
    return malformed_cluster(entry, guest_offset, "a zero cluster, which version 2 does not have");
  }
  Qcow2Cluster cluster;
  cluster.host_offset = bits.offset;
  if (!is_aligned(cluster.host_offset, header.cluster_size())) {
    return malformed_cluster(entry, guest_offset,
                             "its cluster does not lie at a multiple of the cluster size");
  }
  cluster.reserved = has_place(header, bits);
  if (header.external_data() && cluster.reserved && !(bits.zeros && cluster.host_offset == 0) &&
      cluster.host_offset != guest_offset) {
    return malformed_cluster(entry, guest_offset,
                             "its offset in the data file is not its guest offset");
  }
  if (header.extended_l2()) return with_subclusters(cluster, bits, entry, guest_offset);
  cluster.zeros = bits.zeros ? ~uint32_t{0} : 0;
  cluster.stored = !bits.zeros && cluster.reserved ? ~uint32_t{0} : 0;
  return cluster;
}

}  // namespace underlay
