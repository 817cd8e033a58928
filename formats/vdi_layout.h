// The header of a VDI, as bytes. VirtualBox's sources are the specification (VDICore.h:
// VDIPREHEADER, VDIHEADER1, VDIHEADER1PLUS; VDI.cpp: vdiValidateHeader); the field names here are
// those of qemu's block/vdi.c. Pure: bytes in, checked host-order values out; no I/O. All integers
// are little-endian.
//
//   0            pre-header and header
//   offset_bmap  u32 for each block of the disk: the number of its stored block, 0xffffffff = never
//                written (zeros; in a differencing image the parent's bytes), 0xfffffffe =
//                discarded (zeros, also in a differencing image)
//   offset_data  stored blocks 0, 1, 2, ...: each block_extra bytes that are not the disk's, then
//                block_size bytes that are
//
//   pre-header                                   header 1.1, header_size bytes, 384 or more
//     0 64 text "<<< ... Disk Image >>>\n"         72   4 header_size
//    64  4 signature 0xbeda107f                    76   4 image_type: 1 dynamic, 2 static, 3 undo,
//    68  4 version: u16 minor, u16 major                  4 differencing
//                                                  80   4 image_flags
//                                                  84 256 description
//                                                 340   4 offset_bmap
//                                                 344   4 offset_data
//                                                 348  12 cylinders, heads, sectors (unused)
//                                                 360   4 sector_size, 512
//                                                 364   4 unused
//                                                 368   8 disk_size
//                                                 376   4 block_size
//                                                 380   4 block_extra
//                                                 384   4 blocks_in_image
//                                                 388   4 blocks_allocated
//                                                 392  16 uuid_image
//                                                 408  16 uuid_last_snap: changes with the content
//                                                 424  16 uuid_link: uuid_image of the parent
//                                                 440  16 uuid_parent: the parent's
//                                                         uuid_last_snap when this was made
//                                                 456  16 LCHS geometry, in a header of 400 bytes
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "formats/guid.h"
#include "io/bytes.h"
#include "io/error.h"

namespace underlay::vdi {

inline constexpr uint64_t kSectorBytes = 512;
inline constexpr size_t kPreHeaderBytes = 72;
inline constexpr size_t kHeaderBytes = 456;  // what is read: the pre-header and the header 1.1
inline constexpr size_t kEntryBytes = 4;     // of the block map
inline constexpr uint32_t kFreeEntry = 0xffffffff;
inline constexpr uint32_t kDiscardedEntry = 0xfffffffe;

inline constexpr uint32_t kTypeDynamic = 1;
inline constexpr uint32_t kTypeStatic = 2;
inline constexpr uint32_t kTypeUndo = 3;
inline constexpr uint32_t kTypeDifferencing = 4;

std::string to_string(const Guid& uuid);  // as VBoxManage shows it; "" for the null one

// A map entry is not a number of a stored block.
constexpr bool is_stored(uint32_t entry) { return entry < kDiscardedEntry; }

struct Header {
  uint32_t header_size = 0;  // without the pre-header; 384 or more
  uint32_t image_type = 0;   // any value: the caller decides which it serves
  uint32_t offset_bmap = 0;  // whole sectors, behind the header
  uint32_t offset_data = 0;  // whole sectors, behind the map
  uint64_t disk_size = 0;    // any number that the blocks hold
  uint32_t block_size = 0;   // a power of two, 512 or more
  uint32_t block_extra = 0;  // 0, or a power of two
  uint32_t blocks_in_image = 0;
  uint32_t blocks_allocated = 0;  // at most blocks_in_image
  Guid uuid_image{};
  Guid uuid_last_snap{};
  Guid uuid_link{};
  Guid uuid_parent{};

  uint64_t map_bytes() const { return uint64_t{blocks_in_image} * kEntryBytes; }
  uint64_t stored_block_bytes() const { return uint64_t{block_extra} + block_size; }
  uint64_t header_end() const { return kPreHeaderBytes + uint64_t{header_size}; }
};

// How much the first bytes of a file look like a VDI.
enum class Signs : uint8_t { kNone, kDamaged, kSignature };
Signs find_signs(ByteSpan head);

// Everything that the header alone tells. `bytes`: the first ones of the file.
// REQUIRES: bytes.size() == kHeaderBytes.
Result<Header> parse_header(ByteSpan bytes);

}  // namespace underlay::vdi
