// The structures of a VHDX, as bytes: "[MS-VHDX]: Virtual Hard Disk v2 (VHDX) File Format", whose
// sections the numbers below name. Pure: bytes in, checked host-order values out; no I/O. All
// integers are little-endian, a GUID is u32, u16, u16, 8 bytes. Everything but the headers lies at
// multiples of 1 MiB behind the first 1 MiB, in any order.
//
//   0       file type identifier "vhdxfile" (2.2.1)
//   64 KiB  header (2.2.2), 4 KiB         128 KiB  the other header: the higher SequenceNumber
//   counts 192 KiB region table (2.2.3), 64 KiB  256 KiB  its copy 1 MiB.. log (2.3, vhdx_log.h),
//   BAT region (2.5), metadata region (2.6), payload blocks of
//           BlockSize, sector bitmap blocks of 1 MiB (2.4)
//
//   header                           region table, 16 bytes and 32 for each entry
//     0  4 "head"                      0  4 "regi"
//     4  4 Checksum                    4  4 Checksum of the 64 KiB
//     8  8 SequenceNumber              8  4 EntryCount, <= 2047
//    16 16 FileWriteGuid              12  4 reserved
//    32 16 DataWriteGuid              entry
//    48 16 LogGuid                      0 16 Guid
//    64  2 LogVersion 0                16  8 FileOffset
//    66  2 Version 1                   24  4 Length
//    68  4 LogLength                   28  4 Required
//    72  8 LogOffset
//
//   metadata table (2.6.1), at the start of its region, 64 KiB: 32 bytes and 32 for each entry
//     0  8 "metadata"                 entry
//     8  2 reserved                     0 16 ItemId
//    10  2 EntryCount, <= 2047         16  4 Offset in the region, >= 64 KiB
//    12 20 reserved                    20  4 Length
//                                      24  4 bit 0 IsUser, 1 IsVirtualDisk, 2 IsRequired
//                                      28  4 reserved
//   metadata items (2.6.2)
//     File Parameters       u32 BlockSize; u32: bit 0 LeaveBlockAllocated, bit 1 HasParent
//     Virtual Disk Size     u64
//     Logical Sector Size   u32
//     Parent Locator        see vhdx_parent.h
//
//   BAT entry (2.5.1), u64: bits 0-2 state, 3-19 reserved, 20-63 file offset in MiB. A sector
//   bitmap block's entry follows those of the payload blocks of its chunk: 2^23 sectors.
//
// A checksum is the CRC-32C of its structure with the field itself taken as zero.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/defect.h"
#include "formats/file_range.h"
#include "formats/guid.h"
#include "io/bytes.h"
#include "io/error.h"

namespace underlay::vhdx {

inline constexpr uint64_t kMiB = 1 << 20;
inline constexpr std::string_view kFileSignature = "vhdxfile";
inline constexpr std::array<uint64_t, 2> kHeadersAt = {64 << 10, 128 << 10};
inline constexpr size_t kHeaderBytes = 4 << 10;
inline constexpr std::array<uint64_t, 2> kRegionTablesAt = {192 << 10, 256 << 10};
inline constexpr size_t kRegionTableBytes = 64 << 10;
inline constexpr uint64_t kHeaderSectionBytes = kMiB;
inline constexpr size_t kMetadataTableBytes = 64 << 10;
inline constexpr uint32_t kMaxTableEntries = 2047;  // of the region and the metadata table
inline constexpr uint32_t kMaxItemBytes = 1 << 20;
inline constexpr uint32_t kMinBlockBytes = 1 << 20;
inline constexpr uint32_t kMaxBlockBytes = 256 << 20;
inline constexpr uint64_t kMaxDiskBytes = uint64_t{64} << 40;
inline constexpr uint64_t kSectorBitmapBytes = kMiB;
inline constexpr uint64_t kSectorsPerChunk = 1 << 23;

std::string to_string(const Guid& guid);  // as MS-VHDX writes it, without braces

struct Header {
  uint64_t sequence_number = 0;
  Guid file_write_guid{};
  Guid data_write_guid{};
  Guid log_guid{};  // zeros: there is nothing in the log
  uint16_t log_version = 0;
  uint16_t version = 0;
  FileRange log;  // LogOffset, LogLength
};

// The fields as they stand there. REQUIRES: bytes.size() == kHeaderBytes.
Header load_header(ByteSpan bytes);

// What is wrong with the signature or the checksum of a header or a region table, "" when nothing.
std::string header_seal_defect(ByteSpan bytes);
std::string region_table_seal_defect(ByteSpan bytes);

// Which of the two headers, of kHeaderBytes each, is current: 0 or 1. When none is whole, or when
// they contradict each other, which is a defect, the one that says to be newer. A damaged one
// beside a whole one is told in `warnings`.
size_t current_header(ByteSpan first, ByteSpan second, std::vector<std::string>& warnings,
                      Defects& defects);

// What keeps an image with this current header from being served.
void find_header_defects(const Header& header, Defects& defects);

// "BAT", "metadata", "" for others.
std::string_view region_name(const Guid& guid);
// "File Parameters", ..., "" for those that are unknown.
std::string_view item_name(const Guid& id);

// Without defects, regions lie behind the header section, at multiples of 1 MiB; they may lie
// beyond the file's end.
struct RegionTable {
  FileRange bat;                  // length 0: there is none
  FileRange metadata;             // the same
  std::vector<FileRange> others;  // that nobody needs to understand

  bool operator==(const RegionTable&) const = default;
};

// The region table: the first copy, or the second when that one is damaged (told in `warnings`).
// Nothing when none is whole. Defects: that, copies that differ, required regions that are unknown,
// regions that are misplaced (and left out). REQUIRES: two times kRegionTableBytes.
RegionTable find_region_table(ByteSpan first, ByteSpan second, std::vector<std::string>& warnings,
                              Defects& defects);

// `structures` (regions, log) in ascending order. Two that overlap are a defect.
std::vector<FileRange> sorted_apart(std::vector<FileRange> structures, Defects& defects);

// Where the items that are known lie in the metadata region; length 0: there is none. All lie
// within it; without defects, none overlaps another, and none of the first three is missing.
struct MetadataItems {
  FileRange file_parameters;
  FileRange virtual_disk_size;
  FileRange logical_sector_size;
  FileRange physical_sector_size;
  FileRange virtual_disk_id;
  FileRange parent_locator;
};

// REQUIRES: table.size() == kMetadataTableBytes.
MetadataItems find_metadata_items(ByteSpan table, uint64_t region_length, Defects& defects);

struct Geometry {
  uint64_t virtual_disk_size = 0;
  uint32_t block_size = kMinBlockBytes;
  uint32_t logical_sector_size = 512;
  bool has_parent = false;
  bool leave_blocks_allocated = false;  // a fixed image

  uint64_t blocks() const { return div_round_up(virtual_disk_size, block_size); }
  // Payload blocks in a chunk.
  uint64_t chunk_ratio() const { return kSectorsPerChunk * logical_sector_size / block_size; }
  // Numbers of BAT entries: of payload block `block`, and of the sector bitmap block of its chunk.
  uint64_t entry_of(uint64_t block) const { return block + block / chunk_ratio(); }
  uint64_t bitmap_entry_of(uint64_t block) const {
    return block / chunk_ratio() * (chunk_ratio() + 1) + chunk_ratio();
  }
  // How many the disk needs.
  uint64_t entries() const;
};

// By the items' bytes, of 8, 8 and 4 bytes. Only without defects does it make sense to count
// blocks.
Geometry parse_geometry(ByteSpan file_parameters, ByteSpan virtual_disk_size,
                        ByteSpan logical_sector_size, Defects& defects);

struct BatEntry {
  // Of payload blocks (2.5.1.1); a sector bitmap block is kNotPresent or kFullyPresent (2.5.1.2).
  enum State : uint8_t {
    kNotPresent = 0,
    kUndefined = 1,
    kZero = 2,
    kUnmapped = 3,
    kReserved = 4,
    kUnmappedBefore10 = 5,  // of version 0.95 of the specification
    kFullyPresent = 6,
    kPartiallyPresent = 7,
  };
  explicit BatEntry(uint64_t value)
      : state(static_cast<State>(value & 7)),
        reserved(value >> 3 & 0x1ffff),
        file_offset(value >> 20 << 20) {}

  bool is_stored() const { return state == kFullyPresent || state == kPartiallyPresent; }

  State state;
  uint64_t reserved;     // bits
  uint64_t file_offset;  // bytes
};

}  // namespace underlay::vhdx
