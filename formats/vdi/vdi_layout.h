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
//
// Versions before 1.0 (VDIHEADER0) have no header_size; image_type is at 72, image_flags at 76,
// description at 80, disk_size at 352, block_size at 360, blocks_in_image at 364, blocks_allocated
// at 368. Their map lies behind the header, their blocks behind the map.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>

#include "formats/defect.h"
#include "formats/guid.h"
#include "io/bytes.h"
#include "io/error.h"

namespace underlay::vdi {

inline constexpr uint64_t kSectorBytes = 512;
inline constexpr uint32_t kVersion11 = 0x00010001;
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

// Without defects, the fields are as the comments say.
struct Header {
  uint32_t version = 0;      // 1.1
  uint32_t header_size = 0;  // without the pre-header; 384 or more
  uint32_t image_type = 0;   // dynamic, static or differencing
  uint32_t image_flags = 0;  // none that changes what the blocks mean
  uint32_t offset_bmap = 0;  // whole sectors, behind the header
  uint32_t offset_data = 0;  // whole sectors, behind the map
  uint32_t sector_size = 0;  // 512
  uint64_t disk_size = 0;    // any number that the blocks hold
  uint32_t block_size = 0;   // a power of two, 512 or more
  uint32_t block_extra = 0;  // 0, or a power of two
  uint32_t blocks_in_image = 0;
  uint32_t blocks_allocated = 0;  // at most blocks_in_image
  Guid uuid_image{};
  Guid uuid_last_snap{};
  Guid uuid_link{};  // null when and only when the image is not differencing
  Guid uuid_parent{};

  uint32_t major() const { return version >> 16; }
  uint32_t minor() const { return version & 0xffff; }

  uint64_t map_bytes() const { return uint64_t{blocks_in_image} * kEntryBytes; }
  uint64_t stored_block_bytes() const { return uint64_t{block_extra} + block_size; }
  uint64_t header_end() const { return kPreHeaderBytes + uint64_t{header_size}; }
  // REQUIRES: block_size > 0.
  uint64_t blocks() const { return div_round_up(disk_size, block_size); }
  // Bytes of a block that the disk has. REQUIRES: block < blocks().
  uint64_t used_bytes(uint64_t block) const {
    return std::min<uint64_t>(block_size, disk_size - block * block_size);
  }
  uint64_t entry_offset(uint64_t block) const { return offset_bmap + block * kEntryBytes; }
};

// How much the first bytes of a file look like a VDI.
enum class Signs : uint8_t { kNone, kDamaged, kSignature };
Signs find_signs(ByteSpan head);

// The fields as they stand there, of the header of whichever version it is. `bytes`: the first ones
// of the file, with the signature. REQUIRES: bytes.size() == kHeaderBytes.
Header load_header(ByteSpan bytes);

// What stands at the start of the file, for people: "<<< Oracle VM VirtualBox Disk Image >>>".
std::string text_of(ByteSpan bytes);
// The comment that `header`'s header has. Both are text of the image, in UTF-8 as a rule.
// REQUIRES: bytes.size() == kHeaderBytes.
std::string description_of(ByteSpan bytes, const Header& header);

// What keeps the image, a file of `file_size` bytes, from being served, as far as its header tells.
Defects header_defects(const Header& header, uint64_t file_size);

// Is there a stored block `entry`, and do `bytes` of it lie in the file, of `file_size` bytes?
// REQUIRES: is_stored(entry).
bool is_well_placed(const Header& header, uint64_t file_size, uint32_t entry, uint64_t bytes);
// Where the first of the disk's bytes of a stored block lies, once it is sure that `bytes` of them
// (and of the blocks behind it) lie in the file, of `file_size` bytes. `entry`: that of `block`.
// kMalformed: there is no such stored block; kTruncated: it is not in the file. Errors name the
// entry's byte. REQUIRES: is_stored(entry).
Result<uint64_t> place_of_block(const Header& header, uint64_t file_size, uint64_t block,
                                uint32_t entry, uint64_t bytes);

// Both. Fails when there are defects. REQUIRES: bytes.size() == kHeaderBytes.
Result<Header> parse_header(ByteSpan bytes, uint64_t file_size);

}  // namespace underlay::vdi
