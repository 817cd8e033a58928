#include "formats/vmdk/vmdk_extent.h"

#include <algorithm>
#include <cassert>

#include "formats/codec.h"
#include "formats/vmdk/vmdk_directory.h"
#include "formats/vmdk/vmdk_layout.h"

namespace underlay {

using Kind = VmdkEntry::Kind;

VmdkSparseExtent::VmdkSparseExtent(std::shared_ptr<const Source> source,
                                   const VmdkGeometry& geometry, uint64_t sectors, Caches& caches)
    : source_(std::move(source)),
      metadata_(caches, source_),
      geometry_(geometry),
      size_(sectors * kVmdkSectorBytes),
      grain_bytes_(geometry.grain_bytes()),
      covered_bytes_(geometry.covered_bytes()),
      entry_bytes_(geometry.entry_bytes()),
      directory_(geometry.directory_range().offset) {}

Result<std::unique_ptr<const VmdkSparseExtent>> VmdkSparseExtent::open(
    std::shared_ptr<const Source> source, const VmdkSparseFile& file, uint64_t sectors,
    Caches& caches, std::vector<std::string>& warnings) {
  VmdkGeometry geometry = file.geometry;
  if (geometry.capacity < sectors) {
    return in_file(fail(ErrorKind::kMalformed,
                        "capacity is {} sectors, but the descriptor gives the extent {}",
                        geometry.capacity, sectors),
                   source->name());
  }
  if (file.unclean_shutdown) {
    warnings.push_back(
        fmt::format("extent \"{}\" was not closed cleanly by its writer (uncleanShutdown): what "
                    "was written last may be missing",
                    source->name()));
  }
  if (auto good = choose_vmdk_directory(*source, geometry, file.redundant_directory,
                                        sectors * kVmdkSectorBytes, warnings);
      !good) {
    return in_file(std::move(good).error(), source->name());
  }
  return std::unique_ptr<const VmdkSparseExtent>(
      new VmdkSparseExtent(std::move(source), geometry, sectors, caches));
}

uint64_t VmdkSparseExtent::entry_of(const MetadataSlice& slice, uint64_t offset) const {
  return entry_bytes_ == 8 ? slice.le<uint64_t>(offset) : slice.le<uint32_t>(offset);
}

uint64_t VmdkSparseExtent::visible_bytes(uint64_t grain_start) const {
  return std::min(grain_bytes_, size_ - grain_start);
}

// No grain of a table that does not exist is in this extent.
Extent VmdkSparseExtent::absent_tables(const MetadataSlice& directory, uint64_t offset,
                                       uint64_t length) const {
  const uint64_t end = offset + length;
  uint64_t table = offset / covered_bytes_ + 1;
  while (table * covered_bytes_ < end) {
    const uint64_t entry = directory_ + table * entry_bytes_;
    if (!directory.holds(entry, entry_bytes_) || entry_of(directory, entry) != 0) break;
    ++table;
  }
  Extent extent;
  extent.kind = Extent::Kind::kParent;
  extent.length = std::min(end, table * covered_bytes_) - offset;
  return extent;
}

// Is the grain `count` entries behind `first`, which is `found`, the same run: absent or zeros as
// well, or data that follows in the file? What is badly placed ends the run: the next map() says
// what is wrong.
bool VmdkSparseExtent::continues(const MetadataSlice& slice, const TableEntry& first,
                                 const VmdkEntry& found, uint64_t count) const {
  const uint64_t index = first.index + count;
  const uint64_t offset = first.table + index * entry_bytes_;
  if (index == geometry_.gtes_per_gt || !slice.holds(offset, entry_bytes_)) return false;
  const VmdkEntry next = geometry_.table_entry(entry_of(slice, offset));
  if (next.kind != found.kind || found.kind != Kind::kStored) return next.kind == found.kind;
  return !geometry_.compressed && next.sector == found.sector + count * geometry_.grain_size &&
         geometry_.placement(next.sector, visible_bytes(first.grain_start + count * grain_bytes_),
                             first.table, source_->size()) == VmdkGeometry::Placement::kGood;
}

// Without its length.
Extent VmdkSparseExtent::extent_of(const VmdkEntry& found, const TableEntry& entry,
                                   uint64_t offset) const {
  Extent extent;
  if (found.kind == Kind::kAbsent) return extent;
  if (found.kind == Kind::kZero) {
    extent.kind = Extent::Kind::kZero;
    return extent;
  }
  extent.kind = geometry_.compressed ? Extent::Kind::kCompressed : Extent::Kind::kData;
  extent.source = source_.get();
  extent.source_offset = found.sector * kVmdkSectorBytes;
  if (geometry_.compressed) {
    extent.cluster_start = entry.grain_start;
    // At most kVmdkMaxCompressedGrainSectors. Only the marker says how much is stored.
    extent.cluster_length = static_cast<uint32_t>(visible_bytes(entry.grain_start));
  } else {
    extent.source_offset += offset - entry.grain_start;
  }
  return extent;
}

Result<Extent> VmdkSparseExtent::map(uint64_t offset, uint64_t length, MapFor purpose) const {
  assert(length > 0 && range_within(offset, length, size_));
  const uint64_t table = offset / covered_bytes_;
  const uint64_t directory_entry = directory_ + table * entry_bytes_;
  const MetadataSlice directory = TRY(metadata_.slice_at(directory_entry, entry_bytes_, purpose));
  const uint64_t raw_table = entry_of(directory, directory_entry);
  if (raw_table == 0) return absent_tables(directory, offset, length);
  if (auto good = geometry_.check_table(table, raw_table, source_->size()); !good) {
    return in_file(std::move(good).error(), source_->name(), directory_entry);
  }

  const TableEntry entry{.table = geometry_.directory_entry(raw_table).sector * kVmdkSectorBytes,
                         .index = offset % covered_bytes_ / grain_bytes_,
                         .grain_start = offset - offset % grain_bytes_};
  const uint64_t entry_offset = entry.table + entry.index * entry_bytes_;
  const MetadataSlice slice = TRY(metadata_.slice_at(entry_offset, entry_bytes_, purpose));
  const uint64_t raw = entry_of(slice, entry_offset);
  const VmdkEntry found = geometry_.table_entry(raw);
  if (found.kind != Kind::kAbsent && found.kind != Kind::kZero) {
    auto good = geometry_.check_grain(raw, entry.grain_start, visible_bytes(entry.grain_start),
                                      entry.table, source_->size());
    if (!good) return in_file(std::move(good).error(), source_->name(), entry_offset);
  }

  Extent extent = extent_of(found, entry, offset);
  const uint64_t end = offset + length;
  uint64_t run_end = entry.grain_start + grain_bytes_;
  for (uint64_t count = 1; run_end < end && continues(slice, entry, found, count); ++count) {
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
  const StreamBuffer buffer(kHead +
                            static_cast<size_t>(vmdk_max_stored_bytes(geometry_.grain_size)));
  // map() has seen that the marker lies within the file.
  auto have = static_cast<size_t>(std::min(grain_bytes_ / 2, source_->size() - marker));
  if (!source_->read_at(marker, buffer.bytes().first(have))) {
    // Maybe for bytes behind the grain, which is none of its business.
    have = kHead;
    TRY(source_->read_at(marker, buffer.bytes().first(have)));
  }
  const size_t whole =
      kHead + TRY(parse_vmdk_grain_marker(buffer.bytes().first(kHead),
                                          grain_start / kVmdkSectorBytes, geometry_.grain_size));
  if (whole > have) {
    TRY(source_->read_at(marker + have, buffer.bytes().subspan(have, whole - have)));
  }
  return decompress(Codec::kZlib, buffer.bytes().subspan(kHead, whole - kHead), out);
}

}  // namespace underlay
