#include "formats/vmdk/vmdk_sesparse_layout.h"

#include <algorithm>
#include <array>

#include "formats/vmdk/vmdk_layout.h"

namespace underlay {
namespace {

constexpr uint64_t kMagic = 0xcafebabe;
constexpr uint64_t kVersion = 0x0000000200000001;
constexpr uint64_t kVolatileMagic = 0xcafecafe;
constexpr size_t kHeaderEnd = 208;
constexpr size_t kVolatileHeaderEnd = 32;

constexpr uint64_t kTableState = 0x10000000;  // the upper half of a directory entry

Result<void> check_constant(std::string_view field, uint64_t value, uint64_t only) {
  if (value == only) return {};
  return fail(ErrorKind::kUnsupported, "seSparse header's {} is {:#x}: only {:#x} is served", field,
              value, only);
}

Result<SeSparseRegion> parse_region(ByteSpan bytes, size_t at, std::string_view field) {
  const SeSparseRegion region{.offset = load_le<uint64_t>(bytes, at),
                              .size = load_le<uint64_t>(bytes, at + 8)};
  if (region.offset > 0 && range_within(region.offset, region.size, kVmdkMaxSectors)) return region;
  return fail(ErrorKind::kMalformed,
              "seSparse header's {}_offset is {} and {}_size {}: they must be sectors 1 to {}",
              field, region.offset, field, region.size, kVmdkMaxSectors);
}

Result<void> check_constants(ByteSpan bytes) {
  TRY(check_constant("version", load_le<uint64_t>(bytes, 8), kVersion));
  TRY(check_constant("grain_size", load_le<uint64_t>(bytes, 24), kSeSparseGrainSectors));
  TRY(check_constant("grain_table_size", load_le<uint64_t>(bytes, 32), kSeSparseTableSectors));
  TRY(check_constant("flags", load_le<uint64_t>(bytes, 40), 0));
  for (size_t at = 48; at < 80; at += 8) {
    TRY(check_constant("reserved field", load_le<uint64_t>(bytes, at), 0));
  }
  if (is_zero(bytes.subspan(kHeaderEnd, kVmdkSectorBytes - kHeaderEnd))) return {};
  return fail(ErrorKind::kUnsupported,
              "seSparse header has data behind its last known field: the image is too new");
}

// Regions that nothing is read from: empty when the header does not have them.
SeSparseRegion other_region(ByteSpan bytes, size_t at) {
  return {.offset = load_le<uint64_t>(bytes, at), .size = load_le<uint64_t>(bytes, at + 8)};
}

Result<void> check_regions(const SeSparseHeader& header, ByteSpan bytes) {
  constexpr uint64_t kCovered = kSeSparseGtesPerGt * kSeSparseGrainSectors;
  const uint64_t tables = div_round_up(header.capacity, kCovered);
  if (header.grain_dir.size < div_round_up(tables * 8, kVmdkSectorBytes)) {
    return fail(ErrorKind::kMalformed,
                "seSparse header's grain_dir_size is {} sectors, too few for the {} tables of {} "
                "sectors of capacity",
                header.grain_dir.size, tables, header.capacity);
  }
  struct Named {
    std::string_view name;
    SeSparseRegion region;
  };
  const std::array<Named, 8> all = {Named{"header", {.offset = 0, .size = 1}},
                                    Named{"volatile_header", header.volatile_header},
                                    Named{"grain_dir", header.grain_dir},
                                    Named{"grain_tables", header.grain_tables},
                                    Named{"journal_header", other_region(bytes, 96)},
                                    Named{"journal", other_region(bytes, 112)},
                                    Named{"free_bitmap", other_region(bytes, 160)},
                                    Named{"backmap", other_region(bytes, 176)}};
  for (size_t i = 0; i < all.size(); ++i) {
    const FileRange range{.offset = all[i].region.offset, .length = all[i].region.size};
    for (size_t j = 0; j < i; ++j) {
      if (!range.overlaps({.offset = all[j].region.offset, .length = all[j].region.size})) continue;
      return fail(ErrorKind::kMalformed, "seSparse header's {} (sector {}, {} sectors) overlaps {}",
                  all[i].name, range.offset, range.length, all[j].name);
    }
    if (range.length != 0 && !range_within(range.offset, range.length, header.grains_offset)) {
      return fail(ErrorKind::kMalformed,
                  "seSparse header's {} (sector {}, {} sectors) overlaps the grains, which begin "
                  "at sector {}",
                  all[i].name, range.offset, range.length, header.grains_offset);
    }
  }
  return {};
}

}  // namespace

Result<SeSparseHeader> parse_se_sparse_header(ByteSpan bytes) {
  if (bytes.size() < kVmdkSectorBytes) {
    return fail(ErrorKind::kTruncated,
                "a seSparse extent begins with a header of {} bytes; {} exist", kVmdkSectorBytes,
                bytes.size());
  }
  TRY(check_constant("magic", load_le<uint64_t>(bytes, 0), kMagic));
  TRY(check_constants(bytes));
  SeSparseHeader header;
  header.capacity = load_le<uint64_t>(bytes, 16);
  if (header.capacity == 0 || header.capacity > kVmdkMaxSectors) {
    return fail(ErrorKind::kMalformed, "seSparse header's capacity is {} sectors: must be 1 to {}",
                header.capacity, kVmdkMaxSectors);
  }
  header.volatile_header = TRY(parse_region(bytes, 80, "volatile_header"));
  header.grain_dir = TRY(parse_region(bytes, 128, "grain_dir"));
  header.grain_tables = TRY(parse_region(bytes, 144, "grain_tables"));
  header.grains_offset = TRY(parse_region(bytes, 192, "grains")).offset;
  if (header.volatile_header.size == 0) {
    return fail(ErrorKind::kMalformed, "seSparse header's volatile_header_size is 0");
  }
  TRY(check_regions(header, bytes));
  return header;
}

Result<void> check_se_sparse_volatile_header(ByteSpan bytes) {
  if (bytes.size() < kVmdkSectorBytes) {
    return fail(ErrorKind::kTruncated, "the volatile header has {} bytes; {} exist",
                kVmdkSectorBytes, bytes.size());
  }
  TRY(check_constant("volatile magic", load_le<uint64_t>(bytes, 0), kVolatileMagic));
  if (const auto replay = load_le<uint64_t>(bytes, 24); replay != 0) {
    return fail(ErrorKind::kUnsupported,
                "its journal holds changes that are not yet in the disk (replay_journal is {}): "
                "power the VM on and off again, or consolidate its snapshots, on the ESX host, "
                "which replays them; then copy the file again",
                replay);
  }
  if (is_zero(bytes.subspan(kVolatileHeaderEnd, kVmdkSectorBytes - kVolatileHeaderEnd))) return {};
  return fail(
      ErrorKind::kUnsupported,
      "seSparse volatile header has data behind its last known field: the image is too new");
}

std::optional<uint64_t> se_sparse_table_index(uint64_t raw) {
  if (raw >> 32 != kTableState) return std::nullopt;
  return raw & 0xffffffff;
}

VmdkEntry se_sparse_grain(uint64_t raw, uint64_t grains_offset) {
  using Kind = VmdkEntry::Kind;
  switch (raw >> 60) {
    case 0:
      return {.kind = raw == 0 ? Kind::kAbsent : Kind::kUnknown};
    case 1:
    case 2:
      return {.kind = Kind::kZero};
    case 3:
      break;
    default:
      return {.kind = Kind::kUnknown};
  }
  const uint64_t number = (raw >> 48 & 0xfff) | (raw & 0xffffffffffff) << 12;
  // What does not fit is beyond the end of any file, and must not wrap back into it.
  constexpr uint64_t kMaxNumber = kVmdkMaxSectors / kSeSparseGrainSectors;
  return {.kind = Kind::kStored,
          .sector = grains_offset + std::min(number, kMaxNumber) * kSeSparseGrainSectors};
}

}  // namespace underlay
