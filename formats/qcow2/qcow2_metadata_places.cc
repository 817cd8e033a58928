#include "formats/qcow2/qcow2_metadata_places.h"

#include <algorithm>

namespace underlay {
namespace {

constexpr uint64_t kEntryBytes = 8;
constexpr uint64_t kReserved = 511;  // of a refcount table's entry

}  // namespace

Qcow2MetadataPlaces::Qcow2MetadataPlaces(const Qcow2Header& header, const Qcow2L1& l1)
    : cluster_size_(header.cluster_size()),
      refcounts_{.offset = header.refcount_table_offset,
                 .length = header.refcount_table_clusters * header.cluster_size()},
      ranges_{{.offset = 0, .length = header.cluster_size()},
              {.offset = header.l1_table_offset, .length = header.l1_size * kEntryBytes},
              {.offset = l1.offset, .length = l1.bytes()},
              refcounts_,
              {.offset = header.snapshots_offset, .length = header.nb_snapshots}} {}

Result<void> Qcow2MetadataPlaces::add_refcount_blocks(const Metadata& tables) {
  const uint64_t size = tables.source().size();
  // A table that lies askew is none; its entries could stand in two slices.
  if (refcounts_.offset % cluster_size_ != 0) return {};
  if (!range_within(refcounts_.offset, refcounts_.length, size)) return {};
  const uint64_t end = refcounts_.offset + std::min(refcounts_.length, kMaxRefcountTableBytes);
  for (uint64_t at = refcounts_.offset; at < end;) {
    const MetadataSlice slice = TRY(tables.slice_at(at, kEntryBytes, MapFor::kRead));
    for (; at < end && slice.holds(at, kEntryBytes); at += kEntryBytes) {
      const uint64_t block = slice.be<uint64_t>(at) & ~kReserved;
      if (block == 0 || block % cluster_size_ != 0) continue;
      if (range_within(block, cluster_size_, size)) refcount_blocks_.push_back(block);
    }
  }
  std::sort(refcount_blocks_.begin(), refcount_blocks_.end());
  return {};
}

void Qcow2MetadataPlaces::sort_l2_tables() { std::sort(l2_tables_.begin(), l2_tables_.end()); }

bool Qcow2MetadataPlaces::hold_other_than_l2(uint64_t offset) const {
  const FileRange cluster{.offset = offset, .length = cluster_size_};
  return std::any_of(ranges_.begin(), ranges_.end(),
                     [&](const FileRange& range) { return range.overlaps(cluster); }) ||
         std::binary_search(refcount_blocks_.begin(), refcount_blocks_.end(), offset);
}

bool Qcow2MetadataPlaces::hold(uint64_t offset) const {
  return hold_other_than_l2(offset) ||
         std::binary_search(l2_tables_.begin(), l2_tables_.end(), offset);
}

}  // namespace underlay
