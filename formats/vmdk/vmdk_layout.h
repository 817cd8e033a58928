// The binary structures of VMDK sparse extents: bytes in, checked host-order values out. Pure.
//
// VMware "Virtual Disk Format 5.0", sections "Hosted Sparse Extents" and "Stream-Optimized
// Compressed Sparse Extents". All integers are little-endian; offsets and sizes are in sectors of
// 512 bytes unless said otherwise.
//
//   SparseExtentHeader, sector 0 of the extent (packed)
//     0  u32 magicNumber "KDMV"        48 u64 rgdOffset, the redundant grain directory
//     4  u32 version                   56 u64 gdOffset, all ones: see the footer
//     8  u32 flags                     64 u64 overHead, sectors of metadata at the front
//    12  u64 capacity                  72 u8  uncleanShutdown
//    20  u64 grainSize                 73 "\n \r\n", which a transfer in text mode damages
//    28  u64 descriptorOffset          77 u16 compressAlgorithm
//    36  u64 descriptorSize            79 padding up to 512
//    44  u32 numGTEsPerGT
//
//   Grain directory: u32 for each grain table, its sector, 0: there is none.
//   Grain table: 512 u32, the sector of a grain, 0: not in this extent, 1: zeros.
//
//   Stream-optimized: each grain is a marker {u64 lba, u32 size in bytes} and a zlib stream of
//   `size` bytes, filled up to a sector. Other markers have {u64 value, u32 size = 0, u32 type}.
//   The file may end with three sectors: the footer's marker (type 3), the footer, which is a
//   header with the true gdOffset, and the end-of-stream marker (all zeros).
#pragma once

#include <cstdint>
#include <string_view>

#include "io/bytes.h"
#include "io/error.h"

namespace underlay {

inline constexpr uint64_t kVmdkSectorBytes = 512;
inline constexpr uint32_t kVmdkGtesPerGt = 512;                      // the specification's
inline constexpr uint64_t kVmdkMinGrainSectors = 8;                  // the specification's
inline constexpr uint64_t kVmdkMaxGrainSectors = 128 << 10;          // 64 MiB; real ones: 64 KiB
inline constexpr uint64_t kVmdkMaxCompressedGrainSectors = 4 << 10;  // 2 MiB, held in memory
inline constexpr uint64_t kVmdkMaxSectors = (1ull << 63) / 512 - 1;  // bytes fit in an int64
inline constexpr uint64_t kVmdkMaxDescriptorBytes = 1 << 20;         // real ones: below 10 KiB
inline constexpr uint64_t kVmdkGdAtEnd = 0xffffffffffffffffull;      // gdOffset: the footer's
inline constexpr std::string_view kVmdkLineEndBytes = "\n \r\n";
inline constexpr size_t kVmdkLineEndOffset = 73;
inline constexpr size_t kVmdkGrainMarkerBytes = 12;
inline constexpr uint32_t kVmdkLastMarkerType = 3;
inline constexpr size_t kVmdkFooterBytes = 3 * kVmdkSectorBytes;  // with both markers

// What stands at the start of a file.
enum class VmdkMagic : uint8_t {
  kNone,
  kSparse,    // "KDMV"
  kCowd,      // "COWD", ESX sparse extents (VMFSSPARSE)
  kSeSparse,  // 0xcafebabe, space-efficient sparse extents (SESPARSE)
};
VmdkMagic vmdk_magic(ByteSpan head);

// A header whose fields were checked against each other and the limits above, not yet against the
// size of the file. Names are the specification's.
struct VmdkSparseHeader {
  uint32_t version = 0;
  uint32_t flags = 0;
  uint64_t capacity = 0;           // 0: the file only holds a descriptor; grain_size is unchecked
  uint64_t grain_size = 0;         // a power of two within the limits
  uint64_t descriptor_offset = 0;  // > 0 when descriptor_size is
  uint64_t descriptor_size = 0;    // at most kVmdkMaxDescriptorBytes; 0: none embedded
  uint64_t rgd_offset = 0;         // at most kVmdkMaxSectors; 0: no redundant grain directory
  uint64_t gd_offset = 0;          // 1 to kVmdkMaxSectors; or kVmdkGdAtEnd
  uint64_t over_head = 0;          // at most kVmdkMaxSectors
  bool unclean_shutdown = false;
  bool compressed = false;  // the grains are zlib streams behind markers
};

// The fields as they stand, none of them checked. REQUIRES: kVmdkSectorBytes bytes.
VmdkSparseHeader load_vmdk_sparse_header(ByteSpan bytes);

// REQUIRES nothing: any bytes, of which the first sector is the header. kMalformed when the fields
// contradict the specification, kUnsupported when they ask for what is not served.
Result<VmdkSparseHeader> parse_vmdk_sparse_header(ByteSpan bytes);

// The header in the last kVmdkFooterBytes of a file whose first header has gd_offset kVmdkGdAtEnd.
// Fails when its markers are missing or it describes another extent than `header`.
Result<VmdkSparseHeader> parse_vmdk_footer(ByteSpan bytes, const VmdkSparseHeader& header);

// What a compressed grain may take in the file behind its marker. A stream may be longer than what
// it holds (stored blocks, headers), by far less than this.
constexpr uint64_t vmdk_max_stored_bytes(uint64_t grain_sectors) {
  return 2 * grain_sectors * kVmdkSectorBytes + 4096;
}

// Bytes of a compressed grain behind its marker, at most that many, from the marker
// (kVmdkGrainMarkerBytes bytes) of the grain that must begin at sector `lba` of the extent.
Result<uint32_t> parse_vmdk_grain_marker(ByteSpan bytes, uint64_t lba, uint64_t grain_sectors);

}  // namespace underlay
