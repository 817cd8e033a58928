#include "formats/qcow2/qcow2_bitmap.h"

#include <algorithm>
#include <array>
#include <bit>
#include <optional>
#include <vector>

#include "formats/file_range.h"
#include "formats/qcow2/qcow2_bitmap_directory.h"

namespace underlay {
namespace {

constexpr uint64_t kTableEntryBytes = 8;

// A structure of bitmaps must lie in the file, and not in the active L1 table.
Result<void> check_place(const Source& file, const Qcow2Header& header, std::string_view what,
                         const FileRange& range) {
  if (!range_within(range.offset, range.length, file.size())) {
    return in_file(fail(ErrorKind::kTruncated,
                        "the {} has {} bytes at {}: it ends beyond the end of the file, which has "
                        "{} bytes; the file is truncated or damaged",
                        what, range.length, range.offset, file.size()),
                   file.name(), range.offset);
  }
  const FileRange l1{.offset = header.l1_table_offset, .length = uint64_t{header.l1_size} * 8};
  if (range.overlaps(l1)) {
    return in_file(fail(ErrorKind::kMalformed, "the {} lies at {}, where the L1 table lies", what,
                        range.offset),
                   file.name(), range.offset);
  }
  return {};
}

// Bits from `bit` on, in the bytes from file offset `at` on, that are equal to the first one.
uint64_t count_equal_bits(const MetadataSlice& bytes, uint64_t at, uint64_t end, unsigned bit) {
  const auto first = static_cast<uint8_t>(bytes.le<uint8_t>(at) >> bit);
  const bool value = (first & 1) != 0;
  const auto equal_from_lowest = [value](uint8_t byte) {
    return static_cast<unsigned>(value ? std::countr_one(byte) : std::countr_zero(byte));
  };
  uint64_t count = std::min(equal_from_lowest(first), 8 - bit);
  if (count < 8 - bit) return count;
  const uint64_t word = value ? ~uint64_t{0} : 0;
  for (++at; at < end && end - at >= 8 && bytes.le<uint64_t>(at) == word; at += 8) count += 64;
  for (; at < end; ++at) {
    const unsigned equal = equal_from_lowest(bytes.le<uint8_t>(at));
    count += equal;
    if (equal < 8) break;
  }
  return count;
}

}  // namespace

Result<std::unique_ptr<const DirtyBitmap>> find_qcow2_bitmap(std::shared_ptr<const Source> file,
                                                             Caches& caches,
                                                             const Qcow2Header& header,
                                                             const Qcow2BitmapsExtension& extension,
                                                             std::string_view name) {
  TRY(check_place(
      *file, header, "bitmap directory",
      {.offset = extension.bitmap_directory_offset, .length = extension.bitmap_directory_size}));
  std::optional<Qcow2BitmapEntry> found;
  uint64_t found_at = 0;
  const std::string context = fmt::format("bitmap \"{}\": ", printable(name, 200));
  for (Qcow2BitmapDirectory directory(*file, extension); !directory.at_end();) {
    const auto item = TRY(directory.next());
    if (item.name != name) continue;
    if (found) {
      return in_file(fail(ErrorKind::kMalformed, "{}two bitmaps have this name", context),
                     file->name(), item.offset);
    }
    found = item.entry;
    found_at = item.offset;
  }
  if (!found) return nullptr;
  if (auto checked = check_qcow2_bitmap(header, *found); !checked) {
    return with_context(in_file(std::move(checked).error(), file->name(), found_at), context);
  }
  auto bitmap = std::make_unique<const Qcow2Bitmap>(file, caches, header, *found);
  if (auto checked = bitmap->check_table(); !checked) {
    return with_context(std::move(checked).error(), context);
  }
  return bitmap;
}

Result<void> Qcow2Bitmap::check_table() const {
  const Source& file = tables_.source();
  const uint64_t length = entry_.table_bytes();
  TRY(check_place(file, header_, "bitmap table",
                  {.offset = entry_.bitmap_table_offset, .length = length}));
  if (length > kMaxCheckedTableBytes) return {};
  const uint64_t end = entry_.bitmap_table_offset + length;
  for (uint64_t at = entry_.bitmap_table_offset; at < end;) {
    const MetadataSlice table = TRY(tables_.slice_at(at, kTableEntryBytes, MapFor::kRead));
    for (; at < end && table.holds(at, kTableEntryBytes); at += kTableEntryBytes) {
      TRY(cluster_at(table, at));
    }
  }
  return {};
}

Result<Qcow2BitmapCluster> Qcow2Bitmap::cluster_at(const MetadataSlice& table,
                                                   uint64_t entry_offset) const {
  const Source& file = tables_.source();
  auto cluster = parse_qcow2_bitmap_table_entry(header_, table.be<uint64_t>(entry_offset));
  if (!cluster) return in_file(std::move(cluster).error(), file.name(), entry_offset);
  if (cluster->host_offset != 0) {
    TRY(check_place(file, header_, "cluster of bits",
                    {.offset = cluster->host_offset, .length = header_.cluster_size()}));
  }
  return *cluster;
}

Result<DirtyRun> Qcow2Bitmap::run_at(uint64_t offset, uint64_t length) const {
  if (offset >= header_.size) return DirtyRun{.length = length, .dirty = false};
  length = std::min(length, header_.size - offset);
  const uint64_t bit = offset >> entry_.granularity_bits;
  const uint64_t entry_offset =
      entry_.bitmap_table_offset + bit / cluster_bits() * kTableEntryBytes;
  const MetadataSlice table = TRY(tables_.slice_at(entry_offset, kTableEntryBytes, MapFor::kRead));
  const Qcow2BitmapCluster cluster = TRY(cluster_at(table, entry_offset));
  // In bits, from the start of a cluster or from `bit`.
  DirtyRun run;
  uint64_t first_bit = bit;
  if (cluster.host_offset == 0) {
    run = TRY(run_of_like_clusters(table, entry_offset, cluster.value));
    first_bit -= bit % cluster_bits();
  } else {
    run = TRY(run_of_bits(cluster.host_offset, bit % cluster_bits()));
  }
  // Below 2^63: a bitmap has at most 2^32 bits, for 2^31 bytes each.
  run.length = ((first_bit + run.length) << entry_.granularity_bits) - offset;
  run.length = std::min(run.length, length);
  return run;
}

// Table entries without bits of their own that say the same, as far as `table` shows them.
Result<DirtyRun> Qcow2Bitmap::run_of_like_clusters(const MetadataSlice& table,
                                                   uint64_t entry_offset, bool value) const {
  DirtyRun run{.length = cluster_bits(), .dirty = value};
  const uint64_t entry = table.be<uint64_t>(entry_offset);
  const uint64_t end = entry_.bitmap_table_offset + entry_.table_bytes();
  for (uint64_t at = entry_offset + kTableEntryBytes; at < end && table.holds(at, kTableEntryBytes);
       at += kTableEntryBytes) {
    if (table.be<uint64_t>(at) != entry) break;
    run.length += cluster_bits();
  }
  return run;
}

// Equal bits from number `bit` of a cluster of bits on, as far as one slice shows them.
Result<DirtyRun> Qcow2Bitmap::run_of_bits(uint64_t cluster_of_bits, uint64_t bit) const {
  const uint64_t at = cluster_of_bits + bit / 8;
  const MetadataSlice bytes = TRY(tables_.slice_at(at, 1, MapFor::kRead));
  const uint64_t end = std::min(bytes.end(), cluster_of_bits + header_.cluster_size());
  const auto shift = static_cast<unsigned>(bit % 8);
  const bool value = (bytes.le<uint8_t>(at) >> shift & 1) != 0;
  return DirtyRun{.length = count_equal_bits(bytes, at, end, shift), .dirty = value};
}

}  // namespace underlay
