#include "formats/vmdk_extent.h"

#include <algorithm>
#include <cassert>

#include "formats/codec.h"

namespace underlay {
namespace {

constexpr uint64_t kEntryBytes = 4;
constexpr uint64_t kTableBytes = kVmdkGtesPerGt * kEntryBytes;

// Grain table entries with a meaning of their own. Writers that do not know zeroed grains (flag
// bit 2) never write a 1, since sector 1 belongs to the metadata: it is a zero in any case.
constexpr uint32_t kAbsentGrain = 0;
constexpr uint32_t kZeroedGrain = 1;

// Directories up to this size are checked when the extent is opened; the tables of larger ones
// (above 8 TiB) when they are used.
constexpr uint64_t kMaxCheckedDirectoryBytes = 1 << 20;

Result<VmdkSparseHeader> read_footer(const Source& source, const VmdkSparseHeader& header) {
  if (source.size() % kVmdkSectorBytes != 0 || source.size() < kVmdkFooterBytes) {
    return fail(ErrorKind::kTruncated,
                "gdOffset says that the file ends with a footer, but its size {} is no multiple of "
                "{} or too small: it is truncated",
                source.size(), kVmdkSectorBytes);
  }
  std::array<std::byte, kVmdkFooterBytes> bytes;
  TRY(source.read_at(source.size() - bytes.size(), bytes));
  return parse_vmdk_footer(bytes, header);
}

}  // namespace

Result<VmdkSparseHeader> read_vmdk_sparse_header(const Source& source) {
  std::array<std::byte, kVmdkSectorBytes> bytes;
  const auto present = static_cast<size_t>(std::min<uint64_t>(bytes.size(), source.size()));
  TRY(source.read_at(0, MutableByteSpan(bytes).first(present)));
  auto header = parse_vmdk_sparse_header(ByteSpan(bytes).first(present));
  if (header && header->capacity > 0 && header->gd_offset == kVmdkGdAtEnd) {
    header = read_footer(source, *header);
  }
  if (!header) return in_file(std::move(header).error(), source.name());
  return header;
}

VmdkSparseExtent::VmdkSparseExtent(std::shared_ptr<const Source> source,
                                   const VmdkSparseHeader& header, uint64_t sectors, Caches& caches)
    : source_(std::move(source)),
      metadata_(caches, source_),
      header_(header),
      size_(sectors * kVmdkSectorBytes),
      grain_bytes_(header.grain_size * kVmdkSectorBytes),
      table_bytes_(grain_bytes_ * kVmdkGtesPerGt),
      directory_(header.gd_offset * kVmdkSectorBytes),
      metadata_ranges_{FileRange{0, std::max<uint64_t>(header.over_head, 1) * kVmdkSectorBytes},
                       FileRange{directory_, tables() * kEntryBytes},
                       FileRange{header.descriptor_offset * kVmdkSectorBytes,
                                 header.descriptor_size * kVmdkSectorBytes}} {}

// The capacity is at most 2^63 bytes: no overflow here or where entries are counted in bytes.
uint64_t VmdkSparseExtent::tables() const {
  return div_round_up(header_.capacity * kVmdkSectorBytes, table_bytes_);
}

Result<std::unique_ptr<const VmdkSparseExtent>> VmdkSparseExtent::open(
    std::shared_ptr<const Source> source, const VmdkSparseHeader& header, uint64_t sectors,
    Caches& caches) {
  const Source& file = *source;
  if (header.capacity < sectors) {
    return in_file(fail(ErrorKind::kMalformed,
                        "capacity is {} sectors, but the descriptor gives the extent {}",
                        header.capacity, sectors),
                   file.name());
  }
  if (header.gd_offset > kVmdkMaxSectors) {
    return in_file(fail(ErrorKind::kMalformed, "gdOffset is {} sectors, above the limit of {}",
                        header.gd_offset, kVmdkMaxSectors),
                   file.name());
  }
  std::unique_ptr<const VmdkSparseExtent> extent(
      new VmdkSparseExtent(std::move(source), header, sectors, caches));
  if (auto good = extent->check_directory(); !good) {
    return in_file(std::move(good).error(), file.name());
  }
  return extent;
}

Result<void> VmdkSparseExtent::check_directory() const {
  const uint64_t length = tables() * kEntryBytes;
  if (!range_within(directory_, length, source_->size())) {
    return fail(ErrorKind::kTruncated,
                "the grain directory ({} entries at sector {}) lies beyond the end of the file, "
                "which has {} bytes: it is truncated or damaged",
                tables(), header_.gd_offset, source_->size());
  }
  if (length > kMaxCheckedDirectoryBytes) return {};
  std::vector<std::byte> entries(static_cast<size_t>(length));
  TRY(source_->read_at(directory_, entries));
  for (size_t at = 0; at < entries.size(); at += kEntryBytes) {
    const auto sector = load_le<uint32_t>(entries, at);
    if (sector != 0) TRY(check_table(at / kEntryBytes, sector));
  }
  return {};
}

Result<void> VmdkSparseExtent::check_table(uint64_t number, uint32_t sector) const {
  const uint64_t offset = uint64_t{sector} * kVmdkSectorBytes;
  if (!range_within(offset, kTableBytes, source_->size())) {
    return fail(ErrorKind::kTruncated,
                "grain directory entry {} names a table at sector {}, beyond the end of the file, "
                "which has {} bytes: it is truncated or damaged",
                number, sector, source_->size());
  }
  const FileRange table{.offset = offset, .length = kTableBytes};
  // Tables lie within the overhead, but neither in the directory nor in the descriptor.
  if (table.overlaps(metadata_ranges_[1]) || table.overlaps(metadata_ranges_[2])) {
    return fail(ErrorKind::kMalformed,
                "grain directory entry {} names a table at sector {}, inside other metadata: the "
                "file is damaged",
                number, sector);
  }
  return {};
}

bool VmdkSparseExtent::in_metadata(const FileRange& range) const {
  return std::any_of(metadata_ranges_.begin(), metadata_ranges_.end(),
                     [&](const FileRange& metadata) { return range.overlaps(metadata); });
}

// Only those bytes of the last grain that the guest can see need to be in the file.
VmdkSparseExtent::Placement VmdkSparseExtent::placement(const TableEntry& entry,
                                                        uint32_t sector) const {
  FileRange grain{.offset = uint64_t{sector} * kVmdkSectorBytes,
                  .length = std::min(grain_bytes_, size_ - entry.grain_start)};
  if (header_.compressed) grain.length = kVmdkGrainMarkerBytes;
  const FileRange table{.offset = entry.table, .length = kTableBytes};
  if (in_metadata(grain) || grain.overlaps(table)) {
    return Placement::kInMetadata;
  }
  return range_within(grain.offset, grain.length, source_->size()) ? Placement::kGood
                                                                   : Placement::kBeyondEnd;
}

Result<void> VmdkSparseExtent::check_grain(const TableEntry& entry, uint32_t sector) const {
  const uint64_t entry_offset = entry.table + entry.index * kEntryBytes;
  switch (placement(entry, sector)) {
    case Placement::kGood:
      return {};
    case Placement::kInMetadata:
      return in_file(fail(ErrorKind::kMalformed,
                          "grain table entry for sector {} of the extent is {}, where metadata "
                          "lies: the file is damaged",
                          entry.grain_start / kVmdkSectorBytes, sector),
                     source_->name(), entry_offset);
    case Placement::kBeyondEnd:
      break;
  }
  return in_file(fail(ErrorKind::kTruncated,
                      "grain table entry for sector {} of the extent is {}, beyond the end of the "
                      "file, which has {} bytes: it is truncated or damaged",
                      entry.grain_start / kVmdkSectorBytes, sector, source_->size()),
                 source_->name(), entry_offset);
}

// No grain of a table that does not exist is in this extent.
Extent VmdkSparseExtent::absent_tables(const MetadataSlice& directory, uint64_t offset,
                                       uint64_t length) const {
  const uint64_t end = offset + length;
  uint64_t table = offset / table_bytes_ + 1;
  while (table * table_bytes_ < end) {
    const uint64_t entry = directory_ + table * kEntryBytes;
    if (!directory.holds(entry, kEntryBytes) || directory.le<uint32_t>(entry) != 0) break;
    ++table;
  }
  Extent extent;
  extent.kind = Extent::Kind::kParent;
  extent.length = std::min(end, table * table_bytes_) - offset;
  return extent;
}

// Is the grain `count` entries behind `first` the same run: absent or zeros as well, or data that
// follows in the file? What is badly placed ends the run: the next map() says what is wrong.
bool VmdkSparseExtent::continues(const MetadataSlice& slice, const TableEntry& first,
                                 uint64_t count) const {
  const uint64_t offset = first.table + first.index * kEntryBytes;
  const TableEntry next{.table = first.table,
                        .index = first.index + count,
                        .grain_start = first.grain_start + count * grain_bytes_};
  const uint64_t next_offset = offset + count * kEntryBytes;
  if (next.index == kVmdkGtesPerGt || !slice.holds(next_offset, kEntryBytes)) return false;
  const auto sector = slice.le<uint32_t>(offset);
  const auto next_sector = slice.le<uint32_t>(next_offset);
  if (sector == kAbsentGrain || sector == kZeroedGrain) return next_sector == sector;
  return !header_.compressed && next_sector == sector + count * header_.grain_size &&
         placement(next, next_sector) == Placement::kGood;
}

// Without its length.
Extent VmdkSparseExtent::extent_of(uint32_t sector, const TableEntry& entry,
                                   uint64_t offset) const {
  Extent extent;
  if (sector == kAbsentGrain) return extent;
  if (sector == kZeroedGrain) {
    extent.kind = Extent::Kind::kZero;
    return extent;
  }
  extent.kind = header_.compressed ? Extent::Kind::kCompressed : Extent::Kind::kData;
  extent.source = source_.get();
  extent.source_offset = uint64_t{sector} * kVmdkSectorBytes;
  if (header_.compressed) {
    extent.cluster_start = entry.grain_start;
    // At most kVmdkMaxCompressedGrainSectors. Only the marker says how much is stored.
    extent.cluster_length =
        static_cast<uint32_t>(std::min(grain_bytes_, size_ - entry.grain_start));
  } else {
    extent.source_offset += offset - entry.grain_start;
  }
  return extent;
}

Result<Extent> VmdkSparseExtent::map(uint64_t offset, uint64_t length, MapFor purpose) const {
  assert(length > 0 && range_within(offset, length, size_));
  const uint64_t table = offset / table_bytes_;
  const uint64_t directory_entry = directory_ + table * kEntryBytes;
  const MetadataSlice directory = TRY(metadata_.slice_at(directory_entry, kEntryBytes, purpose));
  const auto table_sector = directory.le<uint32_t>(directory_entry);
  if (table_sector == 0) return absent_tables(directory, offset, length);
  if (auto good = check_table(table, table_sector); !good) {
    return in_file(std::move(good).error(), source_->name(), directory_entry);
  }

  const TableEntry entry{.table = uint64_t{table_sector} * kVmdkSectorBytes,
                         .index = offset % table_bytes_ / grain_bytes_,
                         .grain_start = offset - offset % grain_bytes_};
  const uint64_t entry_offset = entry.table + entry.index * kEntryBytes;
  const MetadataSlice slice = TRY(metadata_.slice_at(entry_offset, kEntryBytes, purpose));
  const auto sector = slice.le<uint32_t>(entry_offset);
  if (sector != kAbsentGrain && sector != kZeroedGrain) TRY(check_grain(entry, sector));

  Extent extent = extent_of(sector, entry, offset);
  const uint64_t end = offset + length;
  uint64_t run_end = entry.grain_start + grain_bytes_;
  for (uint64_t count = 1; run_end < end && continues(slice, entry, count); ++count) {
    run_end += grain_bytes_;
  }
  extent.length = std::min(end, run_end) - offset;
  return extent;
}

Result<void> VmdkSparseExtent::load_grain(uint64_t grain_start, uint64_t marker,
                                          MutableByteSpan out) const {
  auto loaded = unpack_grain(grain_start, marker, out);
  if (!loaded) return in_file(std::move(loaded).error(), source_->name(), marker);
  return loaded;
}

// Most grains shrink to less than half of their size: one read brings the marker and all of them.
Result<void> VmdkSparseExtent::unpack_grain(uint64_t grain_start, uint64_t marker,
                                            MutableByteSpan out) const {
  constexpr size_t kHead = kVmdkGrainMarkerBytes;
  const StreamBuffer buffer(kHead + static_cast<size_t>(vmdk_max_stored_bytes(header_.grain_size)));
  // map() has seen that the marker lies within the file.
  auto have = static_cast<size_t>(std::min(grain_bytes_ / 2, source_->size() - marker));
  if (!source_->read_at(marker, buffer.bytes().first(have))) {
    // Maybe for bytes behind the grain, which is none of its business.
    have = kHead;
    TRY(source_->read_at(marker, buffer.bytes().first(have)));
  }
  const size_t whole =
      kHead + TRY(parse_vmdk_grain_marker(buffer.bytes().first(kHead),
                                          grain_start / kVmdkSectorBytes, header_.grain_size));
  if (whole > have) {
    TRY(source_->read_at(marker + have, buffer.bytes().subspan(have, whole - have)));
  }
  return decompress(Codec::kZlib, buffer.bytes().subspan(kHead, whole - kHead), out);
}

}  // namespace underlay
