#include "formats/vmdk/vmdk_layout.h"

#include <bit>
#include <optional>

namespace underlay {
namespace {

constexpr uint32_t kFlagValidNewline = 1u << 0;
constexpr uint32_t kFlagRedundantDirectory = 1u << 1;
constexpr uint32_t kFlagCompressed = 1u << 16;
constexpr uint32_t kFlagMarkers = 1u << 17;
// The upper half of the flags changes how the extent is read; the lower half may be ignored.
constexpr uint32_t kIncompatibleFlags = 0xffff0000u;

constexpr uint16_t kCompressNone = 0;
constexpr uint16_t kCompressDeflate = 1;

constexpr uint32_t kMarkerEndOfStream = 0;
constexpr uint32_t kMarkerFooter = kVmdkLastMarkerType;

Result<void> check_newlines(ByteSpan bytes, uint32_t flags) {
  const std::string_view found =
      as_text(bytes).substr(kVmdkLineEndOffset, kVmdkLineEndBytes.size());
  if (found == kVmdkLineEndBytes) return {};
  const bool unused = (flags & kFlagValidNewline) == 0 && found == std::string_view("\0\0\0\0", 4);
  if (unused) return {};
  return fail(ErrorKind::kMalformed,
              "header's line-end bytes are \"{}\", not \"{}\": the file was damaged by a transfer "
              "in text mode; copy it again in binary mode",
              printable(found), printable(kVmdkLineEndBytes));
}

Result<bool> parse_compression(uint32_t flags, uint16_t algorithm) {
  if (algorithm != kCompressNone && algorithm != kCompressDeflate) {
    return fail(ErrorKind::kUnsupported,
                "compressAlgorithm is {}: only 0 (none) and 1 (deflate) are served", algorithm);
  }
  const bool compressed = (flags & kFlagCompressed) != 0;
  const bool markers = (flags & kFlagMarkers) != 0;
  if (compressed != (algorithm == kCompressDeflate) || compressed != markers) {
    return fail(ErrorKind::kMalformed,
                "flags {:#x} (bit 16 compressed, bit 17 markers) and compressAlgorithm {} "
                "contradict each other: an extent has all three or none",
                flags, algorithm);
  }
  return compressed;
}

Result<void> check_geometry(const VmdkSparseHeader& header, uint32_t num_gtes_per_gt) {
  if (header.capacity > kVmdkMaxSectors) {
    return fail(ErrorKind::kLimit, "capacity is {} sectors, above the limit of {}", header.capacity,
                kVmdkMaxSectors);
  }
  const uint64_t max_grain =
      header.compressed ? kVmdkMaxCompressedGrainSectors : kVmdkMaxGrainSectors;
  if (!std::has_single_bit(header.grain_size) || header.grain_size < kVmdkMinGrainSectors) {
    return fail(ErrorKind::kMalformed,
                "grainSize is {} sectors: it must be a power of two, from {}", header.grain_size,
                kVmdkMinGrainSectors);
  }
  if (header.grain_size > max_grain) {
    return fail(ErrorKind::kLimit, "grainSize is {} sectors, above the limit of {}{}",
                header.grain_size, max_grain, header.compressed ? " for compressed grains" : "");
  }
  if (num_gtes_per_gt != kVmdkGtesPerGt) {
    return fail(ErrorKind::kMalformed, "numGTEsPerGT is {}: it must be {}", num_gtes_per_gt,
                kVmdkGtesPerGt);
  }
  if (header.gd_offset == 0) {
    return fail(ErrorKind::kMalformed, "gdOffset is 0, where the header lies");
  }
  if (header.gd_offset > kVmdkMaxSectors && header.gd_offset != kVmdkGdAtEnd) {
    return fail(ErrorKind::kMalformed, "gdOffset is {} sectors, above the limit of {}",
                header.gd_offset, kVmdkMaxSectors);
  }
  return {};
}

Result<void> check_descriptor(const VmdkSparseHeader& header) {
  constexpr uint64_t kMaxSectors = kVmdkMaxDescriptorBytes / kVmdkSectorBytes;
  if (header.descriptor_size > kMaxSectors) {
    return fail(ErrorKind::kLimit, "descriptorSize is {} sectors, above the limit of {}",
                header.descriptor_size, kMaxSectors);
  }
  const bool outside = header.descriptor_offset == 0 || header.descriptor_offset > kVmdkMaxSectors;
  if (header.descriptor_size > 0 && outside) {
    return fail(ErrorKind::kMalformed, "descriptorOffset is {}: it must be 1 to {}",
                header.descriptor_offset, kVmdkMaxSectors);
  }
  if (header.capacity == 0 && header.descriptor_size == 0) {
    return fail(ErrorKind::kMalformed, "capacity is 0 and there is no descriptor");
  }
  return {};
}

// A redundant directory that cannot be there is none: it is only needed when the other is damaged.
uint64_t usable_rgd_offset(const VmdkSparseHeader& header) {
  const bool there =
      (header.flags & kFlagRedundantDirectory) != 0 && header.rgd_offset <= kVmdkMaxSectors;
  return there ? header.rgd_offset : 0;
}

// {u64 value, u32 size = 0, u32 type}
bool is_marker(ByteSpan sector, uint32_t type) {
  return load_le<uint32_t>(sector, 8) == 0 && load_le<uint32_t>(sector, 12) == type;
}

}  // namespace

VmdkMagic vmdk_magic(ByteSpan head) {
  const std::string_view text = as_text(head);
  if (text.starts_with("KDMV")) return VmdkMagic::kSparse;
  if (text.starts_with("COWD")) return VmdkMagic::kCowd;
  if (head.size() >= 8 && load_le<uint64_t>(head, 0) == 0xcafebabe) return VmdkMagic::kSeSparse;
  return VmdkMagic::kNone;
}

VmdkSparseHeader load_vmdk_sparse_header(ByteSpan bytes) {
  VmdkSparseHeader header;
  header.version = load_le<uint32_t>(bytes, 4);
  header.flags = load_le<uint32_t>(bytes, 8);
  header.capacity = load_le<uint64_t>(bytes, 12);
  header.grain_size = load_le<uint64_t>(bytes, 20);
  header.descriptor_offset = load_le<uint64_t>(bytes, 28);
  header.descriptor_size = load_le<uint64_t>(bytes, 36);
  header.rgd_offset = load_le<uint64_t>(bytes, 48);
  header.gd_offset = load_le<uint64_t>(bytes, 56);
  header.over_head = load_le<uint64_t>(bytes, 64);
  header.unclean_shutdown = load_le<uint8_t>(bytes, 72) != 0;
  header.compressed = (header.flags & kFlagCompressed) != 0;
  return header;
}

Result<VmdkSparseHeader> parse_vmdk_sparse_header(ByteSpan bytes) {
  if (bytes.size() < kVmdkSectorBytes) {
    return fail(ErrorKind::kTruncated, "a sparse extent begins with a header of {} bytes; {} exist",
                kVmdkSectorBytes, bytes.size());
  }
  if (vmdk_magic(bytes) != VmdkMagic::kSparse) {
    return fail(ErrorKind::kMalformed, "begins with \"{}\", not with \"KDMV\": no sparse extent",
                printable(as_text(bytes.first(4))));
  }
  VmdkSparseHeader header = load_vmdk_sparse_header(bytes);
  TRY(check_newlines(bytes, header.flags));
  if (header.version < 1 || header.version > 3) {
    return fail(ErrorKind::kUnsupported, "header's version is {}: 1 to 3 are served",
                header.version);
  }
  constexpr uint32_t kKnown = kFlagCompressed | kFlagMarkers;
  if (const uint32_t unknown = header.flags & kIncompatibleFlags & ~kKnown; unknown != 0) {
    return fail(ErrorKind::kUnsupported,
                "flags {:#x} have the unknown incompatible bits {:#x}: the image is too new",
                header.flags, unknown);
  }
  header.rgd_offset = usable_rgd_offset(header);
  header.compressed = TRY(parse_compression(header.flags, load_le<uint16_t>(bytes, 77)));
  TRY(check_descriptor(header));
  if (header.over_head > kVmdkMaxSectors) {
    return fail(ErrorKind::kMalformed, "overHead is {} sectors, above the limit of {}",
                header.over_head, kVmdkMaxSectors);
  }
  if (header.capacity > 0) TRY(check_geometry(header, load_le<uint32_t>(bytes, 44)));
  return header;
}

Result<VmdkSparseHeader> parse_vmdk_footer(ByteSpan bytes, const VmdkSparseHeader& header) {
  if (bytes.size() != kVmdkFooterBytes || !is_marker(bytes, kMarkerFooter) ||
      !is_marker(bytes.subspan(2 * kVmdkSectorBytes), kMarkerEndOfStream) ||
      load_le<uint64_t>(bytes, 2 * kVmdkSectorBytes) != 0) {
    return fail(ErrorKind::kMalformed,
                "gdOffset says that the file ends with a footer, but its last three sectors are "
                "not footer marker, footer, end-of-stream marker: it is truncated or damaged");
  }
  auto footer = parse_vmdk_sparse_header(bytes.subspan(kVmdkSectorBytes, kVmdkSectorBytes));
  if (!footer) return with_context(std::move(footer).error(), "in the footer: ");
  if (footer->gd_offset == kVmdkGdAtEnd) {
    return fail(ErrorKind::kMalformed,
                "gdOffset of the footer is all ones as well: there is no "
                "grain directory");
  }
  if (footer->capacity != header.capacity || footer->grain_size != header.grain_size ||
      footer->compressed != header.compressed) {
    return fail(ErrorKind::kMalformed,
                "header (capacity {}, grainSize {}, flags {:#x}) and footer (capacity {}, "
                "grainSize {}, flags {:#x}) differ",
                header.capacity, header.grain_size, header.flags, footer->capacity,
                footer->grain_size, footer->flags);
  }
  return footer;
}

Result<uint32_t> parse_vmdk_grain_marker(ByteSpan bytes, uint64_t lba, uint64_t grain_sectors) {
  if (bytes.size() < kVmdkGrainMarkerBytes) {
    return fail(ErrorKind::kTruncated, "a grain marker has {} bytes; {} exist",
                kVmdkGrainMarkerBytes, bytes.size());
  }
  const auto found_lba = load_le<uint64_t>(bytes, 0);
  const auto size = load_le<uint32_t>(bytes, 8);
  if (size == 0) {
    return fail(ErrorKind::kMalformed,
                "the grain table names a marker without data as the grain of sector {}", lba);
  }
  if (found_lba != lba) {
    return fail(ErrorKind::kMalformed,
                "the grain table names the grain of sector {} as that of sector {}", found_lba,
                lba);
  }
  if (size > vmdk_max_stored_bytes(grain_sectors)) {
    return fail(ErrorKind::kMalformed, "the grain of sector {} has {} compressed bytes, above {}",
                lba, size, vmdk_max_stored_bytes(grain_sectors));
  }
  return size;
}

}  // namespace underlay
