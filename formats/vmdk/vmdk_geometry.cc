#include "formats/vmdk/vmdk_geometry.h"

#include <algorithm>

#include "formats/vmdk/vmdk_layout.h"
#include "formats/vmdk/vmdk_sesparse_layout.h"

namespace underlay {
namespace {

// Grain table entry. Writers that do not know zeroed grains (flag bit 2) never write a 1, since
// sector 1 belongs to the metadata: it is a zero in any case.
constexpr uint64_t kZeroedGrain = 1;

}  // namespace

uint64_t VmdkGeometry::grain_bytes() const { return grain_size * kVmdkSectorBytes; }

uint64_t VmdkGeometry::covered_bytes() const { return grain_bytes() * gtes_per_gt; }

// The capacity is at most 2^63 bytes: no overflow here or where entries are counted in bytes.
uint64_t VmdkGeometry::table_count() const {
  return div_round_up(capacity * kVmdkSectorBytes, covered_bytes());
}

FileRange VmdkGeometry::directory_range() const {
  return {.offset = directory * kVmdkSectorBytes, .length = table_count() * entry_bytes()};
}

VmdkEntry VmdkGeometry::directory_entry(uint64_t raw) const {
  using Kind = VmdkEntry::Kind;
  if (raw == 0) return {};
  if (entries != Entries::kSeSparse) return {.kind = Kind::kStored, .sector = raw};
  const auto index = se_sparse_table_index(raw);
  if (!index) return {.kind = Kind::kUnknown};
  return {.kind = Kind::kStored, .sector = tables_offset + *index * kSeSparseTableSectors};
}

VmdkEntry VmdkGeometry::table_entry(uint64_t raw) const {
  using Kind = VmdkEntry::Kind;
  if (entries == Entries::kSeSparse) return se_sparse_grain(raw, grains_offset);
  if (raw == 0) return {};
  if (entries == Entries::kHosted && raw == kZeroedGrain) return {.kind = Kind::kZero};
  return {.kind = Kind::kStored, .sector = raw};
}

Result<void> VmdkGeometry::check_directory(uint64_t file_size) const {
  const FileRange range = directory_range();
  if (!range_within(range.offset, range.length, file_size)) {
    return fail(ErrorKind::kTruncated,
                "the grain directory ({} entries at sector {}) lies beyond the end of the file, "
                "which has {} bytes: it is truncated or damaged",
                table_count(), directory, file_size);
  }
  const auto overlaps = [&](const FileRange& other) { return range.overlaps(other); };
  if (std::any_of(reserved.begin(), reserved.end(), overlaps)) {
    return fail(ErrorKind::kMalformed,
                "the grain directory ({} entries at sector {}) lies inside other metadata: the "
                "file is damaged",
                table_count(), directory);
  }
  return {};
}

FileRange VmdkGeometry::table_range(uint64_t sector) const {
  return {.offset = sector * kVmdkSectorBytes, .length = table_bytes()};
}

bool VmdkGeometry::is_in_tables(uint64_t sector) const {
  return entries != Entries::kSeSparse ||
         range_within(sector - tables_offset, kSeSparseTableSectors, tables_size);
}

VmdkGeometry::Placement VmdkGeometry::table_placement(uint64_t raw, uint64_t file_size) const {
  const VmdkEntry entry = directory_entry(raw);
  if (entry.kind == VmdkEntry::Kind::kUnknown) return Placement::kUnknown;
  const FileRange table = table_range(entry.sector);
  if (!is_in_tables(entry.sector) || !range_within(table.offset, table.length, file_size)) {
    return Placement::kBeyondEnd;
  }
  const auto overlaps = [&](const FileRange& other) { return table.overlaps(other); };
  // Tables may lie among the first sectors, where no grain can, but not in other structures.
  const bool in_metadata =
      overlaps(directory_range()) || std::any_of(reserved.begin(), reserved.end(), overlaps);
  return in_metadata ? Placement::kInMetadata : Placement::kGood;
}

Result<void> VmdkGeometry::check_table(uint64_t number, uint64_t raw, uint64_t file_size) const {
  const VmdkEntry entry = directory_entry(raw);
  switch (table_placement(raw, file_size)) {
    case Placement::kGood:
      return {};
    case Placement::kUnknown:
      return fail(ErrorKind::kMalformed,
                  "grain directory entry {} is {:#x}, which is no grain table: the file is damaged",
                  number, raw);
    case Placement::kInMetadata:
      return fail(ErrorKind::kMalformed,
                  "grain directory entry {} names a table at sector {}, inside other metadata: the "
                  "file is damaged",
                  number, entry.sector);
    case Placement::kBeyondEnd:
      break;
  }
  return fail(ErrorKind::kTruncated,
              "grain directory entry {} names a table at sector {}, beyond the end of the {}: "
              "the file is truncated or damaged",
              number, entry.sector,
              is_in_tables(entry.sector)
                  ? fmt::format("file, which has {} bytes", file_size)
                  : fmt::format("grain tables, sector {}", tables_offset + tables_size));
}

VmdkGeometry::Placement VmdkGeometry::placement(uint64_t sector, uint64_t length, uint64_t table,
                                                uint64_t file_size) const {
  // Only those bytes of the last grain that the guest can see need to be in the file.
  const FileRange grain{.offset = sector * kVmdkSectorBytes,
                        .length = compressed ? kVmdkGrainMarkerBytes : length};
  const auto overlaps = [&](const FileRange& other) { return grain.overlaps(other); };
  if (sector < grains_from || overlaps(directory_range()) ||
      overlaps(FileRange{.offset = table, .length = table_bytes()}) ||
      std::any_of(reserved.begin(), reserved.end(), overlaps)) {
    return Placement::kInMetadata;
  }
  return range_within(grain.offset, grain.length, file_size) ? Placement::kGood
                                                             : Placement::kBeyondEnd;
}

Result<void> VmdkGeometry::check_grain(uint64_t raw, uint64_t grain_start, uint64_t length,
                                       uint64_t table, uint64_t file_size) const {
  const VmdkEntry entry = table_entry(raw);
  const uint64_t guest_sector = grain_start / kVmdkSectorBytes;
  if (entry.kind == VmdkEntry::Kind::kUnknown) {
    return fail(ErrorKind::kMalformed,
                "grain table entry for sector {} of the extent is {:#x}, which has no meaning: the "
                "file is damaged",
                guest_sector, raw);
  }
  switch (placement(entry.sector, length, table, file_size)) {
    case Placement::kGood:
      return {};
    case Placement::kUnknown:
    case Placement::kInMetadata:
      return fail(ErrorKind::kMalformed,
                  "grain table entry for sector {} of the extent names sector {}, where metadata "
                  "lies: the file is damaged",
                  guest_sector, entry.sector);
    case Placement::kBeyondEnd:
      break;
  }
  return fail(ErrorKind::kTruncated,
              "grain table entry for sector {} of the extent names sector {}, beyond the end of "
              "the file, which has {} bytes: it is truncated or damaged",
              guest_sector, entry.sector, file_size);
}

}  // namespace underlay
