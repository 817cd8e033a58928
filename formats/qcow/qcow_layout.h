// The structures of a qcow image of version 1, as bytes. No specification was ever written: QEMU's
// block/qcow.c, which made these images from 2004 on, is the authority; qcow2 (versions 2 and 3) is
// another format behind the same magic. Pure: bytes in, checked host-order values out; no I/O. All
// integers are big-endian.
//
//   header, 48 bytes ("QCowHeader")
//     0  4 magic "QFI\xfb"
//     4  4 version 1
//     8  8 backing_file_offset, 0 = no backing file
//    16  4 backing_file_size: bytes of its name, which has no NUL
//    20  4 mtime of the backing file (unused)
//    24  8 size of the disk in bytes
//    32  1 cluster_bits, 9 to 16: a cluster has 2^cluster_bits bytes
//    33  1 l2_bits, 6 to 13: an L2 table has 2^l2_bits entries
//    34  2 padding
//    36  4 crypt_method: 0 none, 1 AES
//    40  8 l1_table_offset
//
//   L1 table: u64 for each 2^(cluster_bits + l2_bits) bytes of the disk, so its length is in no
//   field: offset of an L2 table in the file, 0 = none.
//
//   L2 table: u64 for each cluster, 0 = not in this image: the backing file's bytes, or zeros.
//     bit 63 clear: offset of the cluster in the file
//     bit 63 set ("QCOW_OFLAG_COMPRESSED"): a raw deflate stream
//       bits 0 to 62-cluster_bits    offset of the stream, not aligned
//       bits 63-cluster_bits to 62   its length in bytes, less than a cluster
//
// QEMU writes tables and clusters at multiples of the cluster's size. Those it makes with a backing
// file have clusters of 512 bytes and L2 tables of 32 KiB, others clusters and tables of 4 KiB.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "io/bytes.h"
#include "io/error.h"

namespace underlay::qcow {

inline constexpr std::array kMagic = {std::byte{'Q'}, std::byte{'F'}, std::byte{'I'},
                                      std::byte{0xfb}};
inline constexpr uint32_t kVersion = 1;
inline constexpr size_t kHeaderBytes = 48;
inline constexpr uint64_t kEntryBytes = 8;  // of L1 and L2 tables
inline constexpr uint64_t kSectorBytes = 512;

// QEMU's limits.
inline constexpr uint8_t kMinClusterBits = 9;
inline constexpr uint8_t kMaxClusterBits = 16;
inline constexpr uint8_t kMinL2Bits = 9 - 3;
inline constexpr uint8_t kMaxL2Bits = 16 - 3;
inline constexpr uint32_t kMaxBackingNameBytes = 1023;
inline constexpr uint64_t kMinDiskBytes = 2;
// Ours, as in qcow2: 8 TiB of disk in the images that QEMU makes.
inline constexpr uint64_t kMaxL1Bytes = 32 << 20;

struct Header {
  uint64_t backing_file_offset = 0;
  uint32_t backing_file_size = 0;
  uint32_t mtime = 0;
  uint64_t size = 0;
  uint8_t cluster_bits = 0;
  uint8_t l2_bits = 0;
  uint32_t crypt_method = 0;
  uint64_t l1_table_offset = 0;

  uint64_t cluster_size() const { return uint64_t{1} << cluster_bits; }
  uint64_t l2_entries() const { return uint64_t{1} << l2_bits; }
  uint64_t l2_bytes() const { return l2_entries() * kEntryBytes; }
  // Bytes of the disk that one L2 table maps.
  uint64_t l2_span() const { return cluster_size() << l2_bits; }
  uint64_t l1_entries() const { return div_round_up(size, l2_span()); }
  uint64_t l1_bytes() const { return l1_entries() * kEntryBytes; }
};

// The header at the start of `head`. Its fields are checked against each other, so that nothing
// that is computed from them wraps; whether tables lie within the file is the caller's to check.
// Encrypted images are refused (kUnsupported).
Result<Header> parse_header(ByteSpan head);

// The fields as they stand. Fails only when `head` is no header of qcow, or not all of one.
Result<Header> load_header(ByteSpan head);

// What parse_header() demands of the fields, for those who look into images that break it.
struct HeaderRule {
  std::string_view name;
  Result<void> (*check)(const Header&) = nullptr;
  bool is_basis = false;  // of the rules behind it, and of everything that is computed
};
std::span<const HeaderRule> header_rules();

// Where a cluster lies.
struct Cluster {
  enum class Kind : uint8_t { kAbsent, kPlain, kDeflate };
  Kind kind = Kind::kAbsent;
  uint64_t offset = 0;  // in the file
  uint64_t length = 0;  // bytes there, > 0
};

// What an L2 entry says of the cluster at `guest_offset`. Plain clusters lie at multiples of the
// cluster's size, as QEMU writes them; others are refused.
Result<Cluster> parse_l2_entry(const Header& header, uint64_t guest_offset, uint64_t entry);

}  // namespace underlay::qcow
