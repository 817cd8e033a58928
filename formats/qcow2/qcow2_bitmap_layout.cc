#include "formats/qcow2/qcow2_bitmap_layout.h"

#include <cassert>

namespace underlay {
namespace {

constexpr size_t kExtensionBytes = 24;
constexpr uint8_t kDirtyTracking = 1;

constexpr uint64_t kOffsetMask = 0x00ff'ffff'ffff'fe00;
constexpr uint64_t kReserved = 0xff00'0000'0000'01fe;
constexpr uint64_t kAllOnes = 1;

// Is it the place of a cluster, and not the header's?
bool is_place(const Qcow2Header& header, uint64_t offset) {
  return offset != 0 && is_aligned(offset, header.cluster_size());
}

}  // namespace

Result<Qcow2BitmapsExtension> parse_qcow2_bitmaps_extension(const Qcow2Header& header,
                                                            ByteSpan data) {
  if (data.size() != kExtensionBytes) {
    return fail(ErrorKind::kMalformed, "the bitmaps extension has {} bytes: must be {}",
                data.size(), kExtensionBytes);
  }
  Qcow2BitmapsExtension extension;
  extension.nb_bitmaps = load_be<uint32_t>(data, 0);
  const auto reserved = load_be<uint32_t>(data, 4);
  extension.bitmap_directory_size = load_be<uint64_t>(data, 8);
  extension.bitmap_directory_offset = load_be<uint64_t>(data, 16);
  if (reserved != 0) {
    return fail(ErrorKind::kMalformed, "the bitmaps extension's reserved field is {}: must be 0",
                reserved);
  }
  if (extension.nb_bitmaps == 0 || extension.nb_bitmaps > Qcow2BitmapsExtension::kMaxBitmaps) {
    return fail(ErrorKind::kLimit, "nb_bitmaps is {}: must be 1 to {}", extension.nb_bitmaps,
                Qcow2BitmapsExtension::kMaxBitmaps);
  }
  if (extension.bitmap_directory_size > Qcow2BitmapsExtension::kMaxDirectoryBytes) {
    return fail(ErrorKind::kLimit, "bitmap_directory_size is {} bytes: the limit is {}",
                extension.bitmap_directory_size, Qcow2BitmapsExtension::kMaxDirectoryBytes);
  }
  if (!is_place(header, extension.bitmap_directory_offset)) {
    return fail(ErrorKind::kMalformed,
                "bitmap_directory_offset is {}: must be a multiple of {} (a cluster), not 0",
                extension.bitmap_directory_offset, header.cluster_size());
  }
  return extension;
}

Result<Qcow2BitmapEntry> parse_qcow2_bitmap_entry(ByteSpan bytes) {
  assert(bytes.size() >= Qcow2BitmapEntry::kFixedBytes);
  Qcow2BitmapEntry entry;
  entry.bitmap_table_offset = load_be<uint64_t>(bytes, 0);
  entry.bitmap_table_size = load_be<uint32_t>(bytes, 8);
  entry.flags = load_be<uint32_t>(bytes, 12);
  entry.type = load_be<uint8_t>(bytes, 16);
  entry.granularity_bits = load_be<uint8_t>(bytes, 17);
  entry.name_size = load_be<uint16_t>(bytes, 18);
  entry.extra_data_size = load_be<uint32_t>(bytes, 20);
  if (entry.name_size == 0 || entry.name_size > Qcow2BitmapEntry::kMaxNameBytes) {
    return fail(ErrorKind::kMalformed, "a bitmap's name_size is {}: must be 1 to {}",
                entry.name_size, Qcow2BitmapEntry::kMaxNameBytes);
  }
  if (entry.extra_data_size > Qcow2BitmapEntry::kMaxExtraBytes) {
    return fail(ErrorKind::kLimit, "a bitmap's extra_data_size is {}: the limit is {}",
                entry.extra_data_size, Qcow2BitmapEntry::kMaxExtraBytes);
  }
  return entry;
}

Result<void> check_qcow2_bitmap(const Qcow2Header& header, const Qcow2BitmapEntry& entry) {
  if ((entry.flags & ~Qcow2BitmapEntry::kKnownFlags) != 0) {
    return fail(ErrorKind::kUnsupported, "flags are {:#x}: only bits 0 to 2 are known",
                entry.flags);
  }
  if ((entry.flags & Qcow2BitmapEntry::kInUse) != 0) {
    return fail(ErrorKind::kMalformed,
                "is inconsistent and cannot be used: its last writer did not close the image (flag "
                "\"in use\"); qemu-img bitmap --remove removes it");
  }
  if (entry.type != kDirtyTracking) {
    return fail(ErrorKind::kUnsupported, "type is {}: only 1 (dirty tracking) is known",
                entry.type);
  }
  if (entry.extra_data_size != 0 && (entry.flags & Qcow2BitmapEntry::kExtraDataCompatible) == 0) {
    return fail(ErrorKind::kUnsupported,
                "has {} bytes of extra data that must be understood, and are not",
                entry.extra_data_size);
  }
  if (entry.granularity_bits < Qcow2BitmapEntry::kMinGranularityBits ||
      entry.granularity_bits > Qcow2BitmapEntry::kMaxGranularityBits) {
    return fail(ErrorKind::kMalformed, "granularity_bits is {}: must be {} to {}",
                entry.granularity_bits, Qcow2BitmapEntry::kMinGranularityBits,
                Qcow2BitmapEntry::kMaxGranularityBits);
  }
  const uint64_t bits = div_round_up(header.size, uint64_t{1} << entry.granularity_bits);
  const uint64_t needed = div_round_up(bits, header.cluster_size() * 8);
  const uint64_t limit = Qcow2BitmapEntry::kMaxBitmapBytes / header.cluster_size();
  if (entry.bitmap_table_size < needed || entry.bitmap_table_size > limit) {
    return fail(ErrorKind::kMalformed,
                "bitmap_table_size is {} entries: must be {} (for a disk of {} bytes) to {}",
                entry.bitmap_table_size, needed, header.size, limit);
  }
  if (!is_place(header, entry.bitmap_table_offset)) {
    return fail(ErrorKind::kMalformed,
                "bitmap_table_offset is {}: must be a multiple of {} (a cluster), not 0",
                entry.bitmap_table_offset, header.cluster_size());
  }
  return {};
}

Result<Qcow2BitmapCluster> parse_qcow2_bitmap_table_entry(const Qcow2Header& header,
                                                          uint64_t entry) {
  const uint64_t offset = entry & kOffsetMask;
  const bool value = (entry & kAllOnes) != 0;
  if ((entry & kReserved) != 0 || (offset != 0 && value)) {
    return fail(ErrorKind::kMalformed, "bitmap table entry {:#x} has reserved bits set", entry);
  }
  if (offset != 0 && !is_place(header, offset)) {
    return fail(ErrorKind::kMalformed,
                "bitmap table entry {:#x} names bits at no multiple of {} (a cluster)", entry,
                header.cluster_size());
  }
  return Qcow2BitmapCluster{.host_offset = offset, .value = value};
}

}  // namespace underlay
