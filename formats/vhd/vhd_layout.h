// The structures of a VHD, as bytes: "Virtual Hard Disk Image Format Specification", version 1.0.
// Pure: bytes in, checked host-order values out; no I/O. All integers are big-endian, a sector has
// 512 bytes.
//
//   fixed ("Hard Disk Footer Format", type 2)
//     0            the disk's bytes
//     end-512      footer
//
//   dynamic (type 3) and differencing (type 4)
//     0            copy of the footer
//     data_offset  dynamic disk header, 1024 bytes ("Dynamic Disk Header Format")
//     table_offset BAT: u32 first sector of each block, 0xffffffff = none ("Block Allocation
//     Table") behind it    tapdisk's batmap header ("tdbatmap"), when tapdisk wrote the image
//     anywhere     parent locator data; batmap; blocks: sector bitmap, padded to whole sectors, and
//                  behind it block_size bytes ("Data Blocks")
//     end-512      footer (old writers: 511 bytes at end-511). An image that was copied to a larger
//                  device has it behind its last block instead; formats/vhd/vhd_footer.h finds it
//
//   footer, 512 bytes                          dynamic disk header, 1024 bytes
//     0  8 cookie "conectix"                     0  8 cookie "cxsparse"
//     8  4 features                              8  8 data_offset (unused)
//    12  4 file_format_version 0x00010000       16  8 table_offset
//    16  8 data_offset of the header            24  4 header_version 0x00010000
//    24  4 time_stamp                           28  4 max_table_entries
//    28  4 creator_application                  32  4 block_size
//    32  4 creator_version                      36  4 checksum
//    36  4 creator_host_os                      40 16 parent_unique_id
//    40  8 original_size                        56  4 parent_time_stamp
//    48  8 current_size                         64 512 parent_unicode_name, UTF-16BE
//    56  4 disk_geometry: u16 cylinders,       576 8*24 parent locators: u32 platform_code,
//          u8 heads, u8 sectors per track              u32 data_space, u32 data_length,
//    60  4 disk_type                                   u32 reserved, u64 data_offset
//    64  4 checksum                            768 256 reserved
//    68 16 unique_id
//    84  1 saved_state                         batmap header, in the sector behind the BAT
//    85  1 "hidden" (tapdisk)                    0  8 cookie "tdbatmap"
//                                                8  8 batmap_offset
//                                               16  4 batmap_size in sectors
//                                               20  4 batmap_version
//                                               24  4 checksum of the batmap
//                                               28  1 marker
//                                               29  1 keyhash: 1 = the blocks are encrypted
//
// A checksum is the one's complement of the sum of all bytes of its structure but its own.
//
// What tapdisk ("tap") wrote, by its creator_version:
//     0.1  sector bitmaps with the first sector in the least significant bit of a byte (all others:
//          in the most significant); parent_unicode_name in the machine's byte order behind a mark;
//          no batmap; "hidden" set without a new checksum
//     1.1  as the specification has it; perhaps a batmap of version 1.1, whose checksum sums signed
//          bytes; "hidden" set without a new checksum
//     1.2  always a batmap
//     1.3  the batmap is of version 1.2: unsigned bytes
// While it writes to an image, the trailing footer is 512 bytes 0xc7. Its resize sets both cookies
// to "v_poison" until it is done. A null parent_unique_id means that the parent is a raw disk.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/defect.h"
#include "formats/guid.h"
#include "io/bytes.h"
#include "io/error.h"

namespace underlay::vhd {

inline constexpr uint64_t kSectorBytes = 512;
inline constexpr size_t kFooterBytes = 512;
inline constexpr size_t kShortFooterBytes = 511;
inline constexpr size_t kDynamicHeaderBytes = 1024;
inline constexpr std::string_view kFooterCookie = "conectix";
inline constexpr std::string_view kHeaderCookie = "cxsparse";
inline constexpr size_t kFooterChecksumAt = 64;
inline constexpr size_t kHeaderChecksumAt = 36;
inline constexpr size_t kParentIdAt = 40;  // in the header, as what follows
inline constexpr size_t kParentTimeStampAt = 56;
inline constexpr size_t kParentNameAt = 64;
inline constexpr size_t kLocatorsAt = 576;
inline constexpr size_t kLocatorBytes = 24;
inline constexpr size_t kBatmapHeaderBytes = 512;
inline constexpr uint32_t kFreeEntry = 0xffffffff;  // of the BAT
inline constexpr uint32_t kMinBlockBytes = 512;
inline constexpr uint32_t kMaxBlockBytes = 256 << 20;  // the specification states no limit
inline constexpr size_t kParentNameBytes = 512;
inline constexpr size_t kParentLocators = 8;

inline constexpr uint32_t kTapdisk01 = 0x00000001;  // creator_version
inline constexpr uint32_t kTapdisk11 = 0x00010001;
inline constexpr uint32_t kTapdisk12 = 0x00010002;

inline constexpr uint32_t kTypeFixed = 2;
inline constexpr uint32_t kTypeDynamic = 3;
inline constexpr uint32_t kTypeDifferencing = 4;

std::string to_string(const Guid& id);  // all of it is big-endian

// The checksum that a structure whose own lies at `at` should have. REQUIRES: at + 4 <=
// bytes.size().
uint32_t checksum_of(ByteSpan bytes, size_t at);

struct Footer {
  uint64_t data_offset = 0;
  std::array<char, 4> creator_application{};
  uint32_t creator_version = 0;
  uint64_t current_size = 0;
  uint16_t cylinders = 0;
  uint8_t heads = 0;
  uint8_t sectors_per_track = 0;
  uint32_t disk_type = 0;  // any value: the caller decides which it serves
  Guid unique_id{};

  bool operator==(const Footer&) const = default;

  std::string_view creator() const {
    return {creator_application.data(), creator_application.size()};
  }
  bool is_by_tapdisk() const { return creator().starts_with("tap"); }
  bool is_by_tapdisk01() const { return is_by_tapdisk() && creator_version == kTapdisk01; }
  bool is_sparse() const { return disk_type == kTypeDynamic || disk_type == kTypeDifferencing; }
  // Bytes that the geometry amounts to; at most 65535 * 255 * 255 * 512.
  uint64_t chs_size() const;
  // Is the geometry the largest that writers state, and says nothing of a larger disk's size?
  bool geometry_is_saturated() const;
  // Does this writer mean current_size, and not the geometry, to be the disk's size? (qemu's rule.)
  bool creator_means_current_size() const;
};

// What else a footer says, of no meaning to a reader.
struct FooterDetails {
  uint32_t features = 0;
  uint32_t file_format_version = 0;
  uint32_t time_stamp = 0;  // seconds since 2000-01-01, UTC
  std::array<char, 4> creator_host_os{};
  uint64_t original_size = 0;
  uint8_t saved_state = 0;
  uint8_t hidden = 0;
};
// REQUIRES: bytes.size() is kFooterBytes or kShortFooterBytes.
FooterDetails footer_details(ByteSpan bytes);

// What some 512 (or, by old writers, 511) bytes are, as a footer.
struct ExaminedFooter {
  enum class State : uint8_t {
    kNone,
    kDamaged,
    kDisabled,  // by vhd-util, while it moves the image's structures about
    kWhole,
  };
  State state = State::kNone;
  Footer footer;       // not kNone: as the bytes have it
  std::string defect;  // kDamaged, kDisabled: "has ..."
};
// REQUIRES: bytes.size() is kFooterBytes or kShortFooterBytes.
ExaminedFooter examine_footer(ByteSpan bytes);

struct ParentLocator {
  std::array<char, 4> platform_code{};  // "W2ru", "W2ku", "MacX", ...; zeros: not used
  uint32_t data_space = 0;
  uint32_t data_length = 0;  // bytes
  uint64_t data_offset = 0;  // byte in the file

  std::string_view code() const { return {platform_code.data(), platform_code.size()}; }
  bool is_used() const { return platform_code != std::array<char, 4>{}; }
  // data_space in bytes: the specification has sectors, but some writers state bytes, which are at
  // least a sector. tapdisk's rule.
  uint64_t space_bytes() const {
    return data_space < kSectorBytes ? uint64_t{data_space} * kSectorBytes : data_space;
  }
};

struct DynamicHeader {
  uint64_t table_offset = 0;       // a multiple of 512
  uint32_t max_table_entries = 0;  // any number
  uint32_t block_size = 0;         // a power of two within the limits above
  Guid parent_unique_id{};
  uint32_t parent_time_stamp = 0;  // seconds since 2000-01-01, UTC; no writer keeps it right
  std::array<std::byte, kParentNameBytes> parent_unicode_name{};
  std::array<ParentLocator, kParentLocators> locators{};

  uint64_t table_bytes() const { return uint64_t{max_table_entries} * 4; }
  uint64_t bitmap_bytes() const;  // of a block's sector bitmap, padded to whole sectors
};

// The code of parse_dynamic_header()'s defect.
inline constexpr std::string_view kHeaderChecksumWrong = "header-checksum-wrong";

// nullopt: the bytes are no such header, which is a defect. Without other defects, the fields are
// as the comments say. REQUIRES: bytes.size() == kDynamicHeaderBytes.
std::optional<DynamicHeader> parse_dynamic_header(ByteSpan bytes, Defects& defects);

struct BatmapHeader {
  uint64_t batmap_offset = 0;  // byte in the file
  uint64_t batmap_bytes = 0;
  uint32_t batmap_version = 0;
  uint32_t checksum = 0;
  bool is_encrypted = false;  // the blocks of the image are
};

// nullopt: no batmap header. REQUIRES: bytes.size() == kBatmapHeaderBytes.
std::optional<BatmapHeader> parse_batmap_header(ByteSpan bytes);

// How much of `batmap`, the bytes that `header` describes, its checksum proves: all of it, the part
// that tapdisk sums for a disk of `current_size` bytes (a batmap may be made for a larger disk), or
// nothing.
uint64_t proved_batmap_bytes(const BatmapHeader& header, ByteSpan batmap, uint64_t current_size);

}  // namespace underlay::vhd
