#include "formats/qcow/qcow_layout.h"

#include <algorithm>
#include <limits>

namespace underlay::qcow {
namespace {

constexpr uint64_t kCompressed = uint64_t{1} << 63;

Failure at_byte(uint64_t offset, Failure failure) {
  failure.value().offset = offset;
  return failure;
}

Result<void> check_magic_and_version(ByteSpan head) {
  const bool magic =
      head.size() >= kMagic.size() && std::equal(kMagic.begin(), kMagic.end(), head.begin());
  if (!magic) {
    return fail(ErrorKind::kMalformed,
                "does not begin with the magic \"QFI\\xfb\": is no qcow image");
  }
  if (head.size() < kHeaderBytes) {
    return fail(ErrorKind::kTruncated,
                "the file has {} bytes, fewer than a qcow header ({}): it is truncated",
                head.size(), kHeaderBytes);
  }
  const auto version = load_be<uint32_t>(head, 4);
  if (version != kVersion) {
    return at_byte(4, fail(ErrorKind::kUnsupported,
                           "version is {}: qcow is version 1; 2 and 3 are -f qcow2", version));
  }
  return {};
}

Result<void> check_geometry(const Header& header) {
  if (header.cluster_bits < kMinClusterBits || header.cluster_bits > kMaxClusterBits) {
    return at_byte(32, fail(ErrorKind::kMalformed,
                            "cluster_bits is {}: must be {} to {}; the header is damaged",
                            header.cluster_bits, kMinClusterBits, kMaxClusterBits));
  }
  if (header.l2_bits < kMinL2Bits || header.l2_bits > kMaxL2Bits) {
    return at_byte(
        33, fail(ErrorKind::kMalformed, "l2_bits is {}: must be {} to {}; the header is damaged",
                 header.l2_bits, kMinL2Bits, kMaxL2Bits));
  }
  if (header.size < kMinDiskBytes) {
    return at_byte(24, fail(ErrorKind::kMalformed,
                            "size is {} bytes: must be {} or more; the header is damaged",
                            header.size, kMinDiskBytes));
  }
  return {};
}

Result<void> check_l1(const Header& header) {
  constexpr uint64_t kMaxEntries = kMaxL1Bytes / kEntryBytes;
  if (header.l1_entries() > kMaxEntries) {
    return at_byte(
        24, fail(ErrorKind::kLimit, "size is {} bytes, which needs {} L1 entries: the limit is {}",
                 header.size, header.l1_entries(), kMaxEntries));
  }
  constexpr auto kMaxOffset = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  if (header.l1_table_offset < kHeaderBytes || !is_aligned(header.l1_table_offset, kEntryBytes) ||
      !range_within(header.l1_table_offset, header.l1_bytes(), kMaxOffset)) {
    return at_byte(40, fail(ErrorKind::kMalformed,
                            "l1_table_offset is {}: must be a multiple of {}, behind the header "
                            "({} bytes) and below 2^63",
                            header.l1_table_offset, kEntryBytes, kHeaderBytes));
  }
  return {};
}

Result<void> check_backing_name(const Header& header) {
  if (header.backing_file_offset == 0) return {};
  if (header.backing_file_size == 0 || header.backing_file_size > kMaxBackingNameBytes) {
    return at_byte(16, fail(ErrorKind::kMalformed, "backing_file_size is {}: must be 1 to {}",
                            header.backing_file_size, kMaxBackingNameBytes));
  }
  if (header.backing_file_offset < kHeaderBytes) {
    return at_byte(8, fail(ErrorKind::kMalformed,
                           "backing_file_offset is {}: must be {} (behind the header) or more",
                           header.backing_file_offset, kHeaderBytes));
  }
  return {};
}

Result<void> check_not_encrypted(const Header& header) {
  if (header.crypt_method == 0) return {};
  if (header.crypt_method > 1) {
    return at_byte(36,
                   fail(ErrorKind::kMalformed,
                        "crypt_method is {}: must be 0 (none) or 1 (AES); the header is damaged",
                        header.crypt_method));
  }
  return at_byte(36, fail(ErrorKind::kUnsupported,
                          "crypt_method is 1 (AES): encrypted images are not served; qemu-img "
                          "convert --object secret,id=key,file=PASSPHRASE --image-opts "
                          "driver=qcow,encrypt.format=aes,encrypt.key-secret=key,file.filename="
                          "IMAGE -O qcow2 OUTPUT decrypts them"));
}

constexpr std::array kHeaderRules = {
    HeaderRule{.name = "geometry", .check = check_geometry, .is_basis = true},
    HeaderRule{.name = "l1-table", .check = check_l1},
    HeaderRule{.name = "backing-file-name", .check = check_backing_name},
    HeaderRule{.name = "encryption", .check = check_not_encrypted},
};

}  // namespace

Result<Header> load_header(ByteSpan head) {
  TRY(check_magic_and_version(head));
  Header header;
  header.backing_file_offset = load_be<uint64_t>(head, 8);
  header.backing_file_size = load_be<uint32_t>(head, 16);
  header.mtime = load_be<uint32_t>(head, 20);
  header.size = load_be<uint64_t>(head, 24);
  header.cluster_bits = load_be<uint8_t>(head, 32);
  header.l2_bits = load_be<uint8_t>(head, 33);
  header.crypt_method = load_be<uint32_t>(head, 36);
  header.l1_table_offset = load_be<uint64_t>(head, 40);
  return header;
}

std::span<const HeaderRule> header_rules() { return kHeaderRules; }

Result<Header> parse_header(ByteSpan head) {
  const Header header = TRY(load_header(head));
  for (const HeaderRule& rule : kHeaderRules) TRY(rule.check(header));
  return header;
}

Result<Cluster> parse_l2_entry(const Header& header, uint64_t guest_offset, uint64_t entry) {
  if (entry == 0) return Cluster{};
  const auto malformed = [&](std::string_view what) {
    return fail(ErrorKind::kMalformed, "L2 entry {:#x} of guest offset {}: {}; it is damaged",
                entry, guest_offset, what);
  };
  Cluster cluster;
  if ((entry & kCompressed) == 0) {
    cluster.kind = Cluster::Kind::kPlain;
    cluster.offset = entry;
    cluster.length = header.cluster_size();
    if (!is_aligned(entry, header.cluster_size())) {
      return malformed("a cluster does not lie at a multiple of its size");
    }
    return cluster;
  }
  const unsigned offset_bits = 63u - header.cluster_bits;
  cluster.kind = Cluster::Kind::kDeflate;
  cluster.offset = entry & ((uint64_t{1} << offset_bits) - 1);
  cluster.length = (entry & ~kCompressed) >> offset_bits;
  if (cluster.length == 0) return malformed("its compressed data has no bytes");
  if (cluster.offset < kHeaderBytes) return malformed("its compressed data lies in the header");
  return cluster;
}

}  // namespace underlay::qcow
