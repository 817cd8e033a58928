#include "formats/vmdk/vmdk_sparse_file.h"

#include <algorithm>
#include <vector>

#include "formats/vmdk/vmdk_cowd_layout.h"
#include "formats/vmdk/vmdk_sesparse_layout.h"

namespace underlay {
namespace {

// Behind its end a stream may be filled up with zeros, as when it was written to a larger device.
// The footer is searched for this far from the end.
constexpr uint64_t kMaxPaddingBytes = 1 << 20;

// Up to `length` bytes from `offset`: fewer, where the file ends.
Result<std::vector<std::byte>> read_some(const Source& source, uint64_t offset, uint64_t length) {
  const uint64_t there = offset < source.size() ? source.size() - offset : 0;
  std::vector<std::byte> bytes(static_cast<size_t>(std::min(length, there)));
  TRY(source.read_at(offset, bytes));
  return bytes;
}

// Where the kVmdkFooterBytes before the zeros at the end of `tail` begin, of which the one sector
// that is the end-of-stream marker is a part. REQUIRES: tail.size() is a multiple of a sector.
uint64_t footer_before_padding(ByteSpan tail) {
  const auto last =
      std::find_if(tail.rbegin(), tail.rend(), [](std::byte b) { return b != std::byte{0}; });
  const auto used = static_cast<uint64_t>(tail.rend() - last);
  const uint64_t end = (div_round_up(used, kVmdkSectorBytes) + 1) * kVmdkSectorBytes;
  const bool is_padded = end <= tail.size() && end >= kVmdkFooterBytes;
  return (is_padded ? end : tail.size()) - kVmdkFooterBytes;
}

Result<VmdkSparseHeader> read_hosted(const Source& source) {
  const auto bytes = TRY(read_some(source, 0, kVmdkSectorBytes));
  auto header = parse_vmdk_sparse_header(bytes);
  if (header && header->capacity > 0 && header->gd_offset == kVmdkGdAtEnd) {
    return TRY(read_vmdk_footer(source, *header)).header;
  }
  return header;
}

Result<VmdkSparseFile> read_cowd(const Source& source) {
  const auto bytes = TRY(read_some(source, 0, kCowdHeaderBytes));
  const CowdHeader header = TRY(parse_cowd_header(bytes));
  const uint64_t used = uint64_t{header.free_sector} * kVmdkSectorBytes;
  if (used > source.size()) {
    return fail(ErrorKind::kTruncated,
                "COWD header's freeSector is {}, beyond the end of the file, which has {} bytes: "
                "it is truncated",
                header.free_sector, source.size());
  }
  VmdkSparseFile file;
  file.free_sector = header.free_sector;
  file.unclean_shutdown = header.unclean_shutdown;
  file.geometry.entries = VmdkGeometry::Entries::kCowd;
  file.geometry.capacity = header.num_sectors;
  file.geometry.grain_size = header.grain_size;
  file.geometry.gtes_per_gt = kCowdGtesPerGt;
  file.geometry.directory = header.gd_offset;
  file.geometry.grains_from = kCowdHeaderBytes / kVmdkSectorBytes;
  file.geometry.reserved[0] = {.offset = 0, .length = kCowdHeaderBytes};
  return file;
}

Result<VmdkSparseFile> read_se_sparse(const Source& source) {
  const auto bytes = TRY(read_some(source, 0, kVmdkSectorBytes));
  const SeSparseHeader header = TRY(parse_se_sparse_header(bytes));
  const uint64_t volatile_at = header.volatile_header.offset * kVmdkSectorBytes;
  const auto second = TRY(read_some(source, volatile_at, kVmdkSectorBytes));
  TRY(check_se_sparse_volatile_header(second));
  VmdkSparseFile file;
  file.geometry.entries = VmdkGeometry::Entries::kSeSparse;
  file.geometry.capacity = header.capacity;
  file.geometry.grain_size = kSeSparseGrainSectors;
  file.geometry.gtes_per_gt = kSeSparseGtesPerGt;
  file.geometry.directory = header.grain_dir.offset;
  file.geometry.grains_from = header.grains_offset;
  file.geometry.reserved[0] = {.offset = 0, .length = kVmdkSectorBytes};
  file.geometry.reserved[1] = {.offset = volatile_at,
                               .length = header.volatile_header.size * kVmdkSectorBytes};
  file.geometry.tables_offset = header.grain_tables.offset;
  file.geometry.tables_size = header.grain_tables.size;
  file.geometry.grains_offset = header.grains_offset;
  return file;
}

Result<VmdkSparseFile> read_by_magic(const Source& source) {
  switch (vmdk_magic(TRY(read_some(source, 0, 8)))) {
    case VmdkMagic::kCowd:
      return read_cowd(source);
    case VmdkMagic::kSeSparse:
      return read_se_sparse(source);
    case VmdkMagic::kSparse:
    case VmdkMagic::kNone:
      break;
  }
  return hosted_sparse_file(TRY(read_hosted(source)));
}

}  // namespace

Result<VmdkFooter> read_vmdk_footer(const Source& source, const VmdkSparseHeader& header) {
  if (source.size() % kVmdkSectorBytes != 0 || source.size() < kVmdkFooterBytes) {
    return fail(ErrorKind::kTruncated,
                "gdOffset says that the file ends with a footer, but its size {} is no multiple of "
                "{} or too small: it is truncated",
                source.size(), kVmdkSectorBytes);
  }
  const uint64_t last = source.size() - kVmdkFooterBytes;
  const auto bytes = TRY(read_some(source, last, kVmdkFooterBytes));
  auto footer = parse_vmdk_footer(bytes, header);
  if (footer) return VmdkFooter{.header = *footer, .offset = last};
  const uint64_t length = std::min(source.size(), kMaxPaddingBytes + kVmdkFooterBytes);
  const auto tail = TRY(read_some(source, source.size() - length, length));
  const uint64_t at = footer_before_padding(tail);
  const ByteSpan before = ByteSpan(tail).subspan(static_cast<size_t>(at), kVmdkFooterBytes);
  return VmdkFooter{.header = TRY(parse_vmdk_footer(before, header)),
                    .offset = source.size() - length + at};
}

Result<VmdkSparseHeader> read_vmdk_sparse_header(const Source& source) {
  auto header = read_hosted(source);
  if (!header) return in_file(std::move(header).error(), source.name());
  return header;
}

VmdkSparseFile hosted_sparse_file(const VmdkSparseHeader& header) {
  VmdkSparseFile file;
  file.unclean_shutdown = header.unclean_shutdown;
  file.redundant_directory = header.rgd_offset;
  file.geometry.entries = VmdkGeometry::Entries::kHosted;
  file.geometry.compressed = header.compressed;
  file.geometry.capacity = header.capacity;
  file.geometry.grain_size = header.grain_size;
  file.geometry.gtes_per_gt = kVmdkGtesPerGt;
  file.geometry.directory = header.gd_offset;
  file.geometry.grains_from = std::max<uint64_t>(header.over_head, 1);
  file.geometry.reserved[0] = {.offset = 0, .length = kVmdkSectorBytes};
  file.geometry.reserved[1] = {.offset = header.descriptor_offset * kVmdkSectorBytes,
                               .length = header.descriptor_size * kVmdkSectorBytes};
  return file;
}

Result<VmdkSparseFile> read_vmdk_sparse_file(const Source& source) {
  auto file = read_by_magic(source);
  if (!file) return in_file(std::move(file).error(), source.name());
  return file;
}

}  // namespace underlay
