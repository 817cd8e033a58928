#include "formats/qcow2/qcow2_layout.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <limits>

namespace underlay {
namespace {

constexpr size_t kExtensionHeadBytes = 8;

// An entry of the feature name table: type, bit number, name padded with NUL.
constexpr size_t kFeatureEntryBytes = 48;

Failure at_byte(uint64_t offset, Failure failure) {
  failure.value().offset = offset;
  return failure;
}

template <class... Args>
Failure malformed(uint64_t offset, fmt::format_string<Args...> format, Args&&... args) {
  return at_byte(offset, fail(ErrorKind::kMalformed, format, std::forward<Args>(args)...));
}

constexpr size_t kCompressionTypeAt = 104;

// The fields as they stand. REQUIRES: `head` holds the header of its version.
Qcow2Header load_fields(ByteSpan head) {
  Qcow2Header header;
  header.version = load_be<uint32_t>(head, 4);
  header.backing_file_offset = load_be<uint64_t>(head, 8);
  header.backing_file_size = load_be<uint32_t>(head, 16);
  header.cluster_bits = load_be<uint32_t>(head, 20);
  header.size = load_be<uint64_t>(head, 24);
  header.crypt_method = load_be<uint32_t>(head, 32);
  header.l1_size = load_be<uint32_t>(head, 36);
  header.l1_table_offset = load_be<uint64_t>(head, 40);
  header.refcount_table_offset = load_be<uint64_t>(head, 48);
  header.refcount_table_clusters = load_be<uint32_t>(head, 56);
  header.nb_snapshots = load_be<uint32_t>(head, 60);
  header.snapshots_offset = load_be<uint64_t>(head, 64);
  header.header_length = Qcow2Header::kVersion2Bytes;
  if (header.version >= 3) {
    header.incompatible_features = load_be<uint64_t>(head, 72);
    header.compatible_features = load_be<uint64_t>(head, 80);
    header.autoclear_features = load_be<uint64_t>(head, 88);
    header.refcount_order = load_be<uint32_t>(head, 96);
    header.header_length = load_be<uint32_t>(head, 100);
    if (header.header_length > kCompressionTypeAt && head.size() > kCompressionTypeAt) {
      header.compression_type = load_be<uint8_t>(head, kCompressionTypeAt);
    }
  }
  return header;
}

Result<void> check_magic(ByteSpan head) {
  const bool magic = head.size() >= kQcow2Magic.size() &&
                     std::equal(kQcow2Magic.begin(), kQcow2Magic.end(), head.begin());
  if (!magic) return malformed(0, "does not begin with the qcow2 magic \"QFI\\xfb\": no qcow2");
  return {};
}

Result<void> check_length(ByteSpan head) {
  if (head.size() >= Qcow2Header::kVersion2Bytes) {
    if (load_be<uint32_t>(head, 4) == 2) return {};
    if (head.size() > kCompressionTypeAt) return {};
    if (head.size() == Qcow2Header::kVersion3Bytes) {
      const auto header_length = load_be<uint32_t>(head, 100);
      if (header_length <= kCompressionTypeAt) return {};
      return fail(ErrorKind::kTruncated, "the file ends inside its header, which has {} bytes",
                  header_length);
    }
  }
  return fail(ErrorKind::kTruncated,
              "the file has {} bytes, fewer than a qcow2 header ({} in version 2, {} in version "
              "3): it is truncated",
              head.size(), Qcow2Header::kVersion2Bytes, Qcow2Header::kVersion3Bytes);
}

Result<void> check_version(const Qcow2Header& header) {
  if (header.version == 2 || header.version == 3) return {};
  return at_byte(4, fail(ErrorKind::kUnsupported,
                         "version is {}: 2 and 3 are served; qemu-img convert makes such an image "
                         "of others",
                         header.version));
}

Result<void> check_geometry(const Qcow2Header& header) {
  if (header.cluster_bits < Qcow2Header::kMinClusterBits ||
      header.cluster_bits > Qcow2Header::kMaxClusterBits) {
    return malformed(20, "cluster_bits is {}: must be {} to {}; the header is damaged",
                     header.cluster_bits, Qcow2Header::kMinClusterBits,
                     Qcow2Header::kMaxClusterBits);
  }
  if (header.extended_l2() && header.cluster_bits < Qcow2Header::kMinExtendedL2ClusterBits) {
    return malformed(20, "cluster_bits is {} with extended L2 entries: must be {} or more",
                     header.cluster_bits, Qcow2Header::kMinExtendedL2ClusterBits);
  }
  return {};
}

Result<void> check_header_length(const Qcow2Header& header) {
  if (header.version >= 3 &&
      (header.header_length < Qcow2Header::kVersion3Bytes || header.header_length % 8 != 0 ||
       header.header_length > header.cluster_size())) {
    return malformed(100, "header_length is {}: must be a multiple of 8 from {} to {} (a cluster)",
                     header.header_length, Qcow2Header::kVersion3Bytes, header.cluster_size());
  }
  return {};
}

// "compression_type": a type other than 0 comes with its incompatible bit, and only then.
Result<void> check_compression_type(const Qcow2Header& header) {
  const unsigned type = header.compression_type;
  if (type > 1) {
    return at_byte(kCompressionTypeAt,
                   fail(ErrorKind::kUnsupported,
                        "compression_type is {}: 0 (zlib) and 1 (zstd) are served", type));
  }
  if ((type != 0) != header.has(Qcow2Header::kCompressionType)) {
    return malformed(kCompressionTypeAt,
                     "compression_type is {}, but incompatible feature bit 3 is {}", type,
                     header.has(Qcow2Header::kCompressionType) ? 1 : 0);
  }
  return {};
}

Result<void> check_backing_name(const Qcow2Header& header) {
  if (header.backing_file_offset == 0) return {};
  if (header.backing_file_offset < header.header_length ||
      header.backing_file_offset > header.cluster_size()) {
    return malformed(8,
                     "backing_file_offset is {}: must be {} (behind the header) to {} (in the "
                     "first cluster)",
                     header.backing_file_offset, header.header_length, header.cluster_size());
  }
  const uint64_t limit = std::min<uint64_t>(Qcow2Header::kMaxBackingNameBytes,
                                            header.cluster_size() - header.backing_file_offset);
  if (header.backing_file_size == 0 || header.backing_file_size > limit) {
    return malformed(16, "backing_file_size is {}: must be 1 to {}", header.backing_file_size,
                     limit);
  }
  return {};
}

Result<void> check_snapshot_table(const Qcow2Header& header) {
  if (header.nb_snapshots == 0) return {};
  if (header.nb_snapshots > Qcow2Header::kMaxSnapshots) {
    return at_byte(60, fail(ErrorKind::kLimit, "nb_snapshots is {}: the limit is {}",
                            header.nb_snapshots, Qcow2Header::kMaxSnapshots));
  }
  if (header.snapshots_offset == 0 || !is_aligned(header.snapshots_offset, header.cluster_size())) {
    return malformed(64, "snapshots_offset is {}: must be a multiple of {} (a cluster), not 0",
                     header.snapshots_offset, header.cluster_size());
  }
  return {};
}

Result<void> check_active_l1(const Qcow2Header& header) {
  return check_qcow2_l1(
      header,
      {.offset = header.l1_table_offset, .entries = header.l1_size, .disk_size = header.size});
}

constexpr std::array kHeaderRules = {
    Qcow2HeaderRule{.name = "version", .check = check_version},
    Qcow2HeaderRule{.name = "cluster-bits", .check = check_geometry, .is_basis = true},
    Qcow2HeaderRule{.name = "header-length", .check = check_header_length, .is_basis = true},
    Qcow2HeaderRule{.name = "compression-type", .check = check_compression_type},
    Qcow2HeaderRule{.name = "backing-file-name", .check = check_backing_name},
    Qcow2HeaderRule{.name = "l1-table", .check = check_active_l1},
    Qcow2HeaderRule{.name = "snapshot-table", .check = check_snapshot_table},
};

}  // namespace

Result<Qcow2Header> load_qcow2_header(ByteSpan head) {
  TRY(check_magic(head));
  TRY(check_length(head));
  return load_fields(head);
}

std::span<const Qcow2HeaderRule> qcow2_header_rules() { return kHeaderRules; }

Result<Qcow2Header> parse_qcow2_header(ByteSpan head) {
  Qcow2Header header = TRY(load_qcow2_header(head));
  for (const Qcow2HeaderRule& rule : kHeaderRules) TRY(rule.check(header));
  return header;
}

Qcow2ExtensionWalk::Qcow2ExtensionWalk(const Qcow2Header& header, ByteSpan first_cluster)
    : at_(header.header_length) {
  const uint64_t end =
      header.backing_file_offset != 0 ? header.backing_file_offset : header.cluster_size();
  area_ = first_cluster.first(static_cast<size_t>(std::min<uint64_t>(end, first_cluster.size())));
}

Result<std::optional<Qcow2Extension>> Qcow2ExtensionWalk::next() {
  if (!range_within(at_, kExtensionHeadBytes, area_.size())) return std::nullopt;
  Qcow2Extension extension;
  extension.offset = at_;
  extension.type = load_be<uint32_t>(area_, at_);
  const auto length = load_be<uint32_t>(area_, at_ + 4);
  if (extension.type == Qcow2Extension::kEnd) return std::nullopt;
  if (!range_within(at_ + kExtensionHeadBytes, length, area_.size())) {
    return malformed(at_, "header extension {:#x} has {} bytes: only {} are left for it",
                     extension.type, length, area_.size() - at_ - kExtensionHeadBytes);
  }
  extension.data = area_.subspan(at_ + kExtensionHeadBytes, length);
  at_ += kExtensionHeadBytes + (uint64_t{length} + 7) / 8 * 8;
  return extension;
}

Result<void> take_qcow2_extension(const Qcow2Extension& extension, Qcow2Extensions& extensions) {
  bool again = false;
  const auto take_text = [&](std::string_view& text) {
    again = !text.empty();
    if (!again) text = as_text(extension.data);
  };
  const auto take_bytes = [&](ByteSpan& bytes) {
    again = !bytes.empty();
    if (!again) bytes = extension.data;
  };
  switch (extension.type) {
    case Qcow2Extension::kBackingFormat:
      take_text(extensions.backing_format);
      break;
    case Qcow2Extension::kDataFile:
      take_text(extensions.data_file);
      break;
    case Qcow2Extension::kFeatureNames:
      extensions.feature_names = extension.data;
      break;
    case Qcow2Extension::kBitmaps:
      take_bytes(extensions.bitmaps);
      break;
    case Qcow2Extension::kEncryption:
      take_bytes(extensions.encryption);
      break;
    default:
      break;
  }
  if (!again) return {};
  return malformed(extension.offset, "header extension {:#x} stands twice", extension.type);
}

Result<Qcow2Extensions> parse_qcow2_extensions(const Qcow2Header& header, ByteSpan first_cluster) {
  Qcow2ExtensionWalk walk(header, first_cluster);
  Qcow2Extensions extensions;
  while (const auto extension = TRY(walk.next())) {
    TRY(take_qcow2_extension(*extension, extensions));
  }
  return extensions;
}

std::string_view qcow2_feature_name(ByteSpan table, Qcow2FeatureKind kind, unsigned bit) {
  for (; table.size() >= kFeatureEntryBytes; table = table.subspan(kFeatureEntryBytes)) {
    if (table[0] != std::byte(kind) || table[1] != std::byte(bit)) continue;
    const std::string_view name = as_text(table.subspan(2, kFeatureEntryBytes - 2));
    return name.substr(0, name.find('\0'));
  }
  return "";
}

Result<std::optional<std::string_view>> parse_qcow2_backing_name(const Qcow2Header& header,
                                                                 ByteSpan first_cluster) {
  if (header.backing_file_offset == 0) return std::nullopt;
  if (!range_within(header.backing_file_offset, header.backing_file_size, first_cluster.size())) {
    return at_byte(header.backing_file_offset,
                   fail(ErrorKind::kTruncated,
                        "the backing file name lies beyond the end of the file: it is truncated"));
  }
  return as_text(first_cluster.subspan(static_cast<size_t>(header.backing_file_offset),
                                       header.backing_file_size));
}

Result<void> check_qcow2_supported(const Qcow2Header& header, const Qcow2Extensions& extensions) {
  const uint64_t unknown = header.incompatible_features & ~Qcow2Header::kKnownIncompatible;
  if (unknown != 0) {
    const auto bit = static_cast<unsigned>(std::countr_zero(unknown));
    const std::string_view name =
        qcow2_feature_name(extensions.feature_names, Qcow2FeatureKind::kIncompatible, bit);
    return at_byte(72, fail(ErrorKind::kUnsupported,
                            "incompatible feature bit {} (\"{}\") is set: it is not supported; "
                            "qemu-img convert makes an image without it",
                            bit, name.empty() ? "unnamed" : printable(name)));
  }
  if (header.crypt_method != Qcow2Header::kLuks && !extensions.encryption.empty()) {
    return at_byte(32,
                   fail(ErrorKind::kMalformed,
                        "crypt_method is {}, but a header extension tells where its LUKS header "
                        "lies: only images with crypt_method 2 have one",
                        header.crypt_method));
  }
  return {};
}

Result<void> check_qcow2_l1(const Qcow2Header& header, const Qcow2L1& l1) {
  constexpr uint64_t kMaxEntries = Qcow2Header::kMaxL1Bytes / 8;
  if (l1.entries > kMaxEntries) {
    return at_byte(36, fail(ErrorKind::kLimit, "l1_size is {} entries: the limit is {}", l1.entries,
                            kMaxEntries));
  }
  const uint64_t needed = div_round_up(l1.disk_size, header.l2_span());
  if (l1.entries < needed) {
    return malformed(36, "l1_size is {} entries: {} bytes of disk need {}; the header is damaged",
                     l1.entries, l1.disk_size, needed);
  }
  if (l1.entries == 0) return {};
  constexpr auto kMaxOffset = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  if (l1.offset == 0 || !is_aligned(l1.offset, header.cluster_size()) ||
      !range_within(l1.offset, l1.bytes(), kMaxOffset)) {
    return malformed(40,
                     "l1_table_offset is {}: must be a multiple of {} (a cluster), not 0, and "
                     "below 2^63",
                     l1.offset, header.cluster_size());
  }
  return {};
}

Result<Qcow2Snapshot> parse_qcow2_snapshot(ByteSpan bytes) {
  assert(bytes.size() >= Qcow2Snapshot::kFixedBytes);
  Qcow2Snapshot snapshot;
  snapshot.l1_table_offset = load_be<uint64_t>(bytes, 0);
  snapshot.l1_size = load_be<uint32_t>(bytes, 8);
  snapshot.id_bytes = load_be<uint16_t>(bytes, 12);
  snapshot.name_bytes = load_be<uint16_t>(bytes, 14);
  snapshot.date_sec = load_be<uint32_t>(bytes, 16);
  snapshot.date_nsec = load_be<uint32_t>(bytes, 20);
  snapshot.vm_clock_nsec = load_be<uint64_t>(bytes, 24);
  snapshot.vm_state_size = load_be<uint32_t>(bytes, 32);
  snapshot.extra_bytes = load_be<uint32_t>(bytes, 36);
  if (snapshot.extra_bytes > Qcow2Snapshot::kMaxExtraBytes) {
    return fail(ErrorKind::kLimit, "a snapshot has {} bytes of extra data: the limit is {}",
                snapshot.extra_bytes, Qcow2Snapshot::kMaxExtraBytes);
  }
  return snapshot;
}

// "Snapshots": version 3 must state the disk's size; version 2 images had none to state.
Result<uint64_t> parse_qcow2_snapshot_disk_size(const Qcow2Header& header, ByteSpan extra) {
  constexpr size_t kDiskSizeAt = 8;
  if (extra.size() >= kDiskSizeAt + 8) return load_be<uint64_t>(extra, kDiskSizeAt);
  if (header.version == 2) return header.size;
  return fail(ErrorKind::kMalformed,
              "a snapshot has {} bytes of extra data: version 3 needs 16, with the disk's size; "
              "qemu-img check -r all repairs it",
              extra.size());
}

// Version, cluster_bits, l1_size and l1_table_offset must all be right: a raw disk does not look
// like that by chance.
bool resembles_qcow2(ByteSpan head) {
  if (head.size() < Qcow2Header::kVersion3Bytes) return false;
  int right = 0;
  for (size_t i = 0; i < kQcow2Magic.size(); ++i) right += head[i] == kQcow2Magic[i] ? 1 : 0;
  if (right != 3) return false;
  const auto version = load_be<uint32_t>(head, 4);
  if (version != 2 && version != 3) return false;
  const Qcow2Header header = load_fields(head);
  return check_geometry(header) && check_header_length(header) && check_active_l1(header);
}

}  // namespace underlay
