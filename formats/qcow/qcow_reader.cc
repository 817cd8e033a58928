#include "formats/qcow/qcow_reader.h"

#include <algorithm>

#include "formats/codec.h"
#include "formats/qcow/qcow_view.h"

namespace underlay::qcow {

bool QcowReader::overlaps_metadata(const FileRange& range) const {
  return range.overlaps({.offset = 0, .length = kHeaderBytes}) ||
         range.overlaps({.offset = header_.l1_table_offset, .length = header_.l1_bytes()});
}

Result<void> QcowReader::check_tables() const {
  const uint64_t end = header_.l1_table_offset + header_.l1_bytes();
  for (uint64_t at = header_.l1_table_offset; at < end;) {
    const MetadataSlice l1 = TRY(tables_.slice_at(at, kEntryBytes, MapFor::kRead));
    for (; at < end && l1.holds(at, kEntryBytes); at += kEntryBytes) TRY(l2_table_at(l1, at));
  }
  return {};
}

Result<void> QcowReader::open_library(const libyal::Library& library) {
  auto view = std::make_shared<const View>(file_, header_);
  if (view->l1_bytes() > kMaxL1Bytes) {
    return in_file(fail(ErrorKind::kLimit,
                        "size is {} bytes, for which libqcow needs an L1 table of {}: the limit is "
                        "{}",
                        header_.size, view->l1_bytes(), kMaxL1Bytes),
                   file_->name(), 24);
  }
  library_ = TRY(libyal::LibraryFile::open(library, {.image = std::move(view)}));
  if (library_->size() == header_.size) return {};
  return fail(ErrorKind::kMalformed, "size is {} bytes, but libqcow takes it for {}", header_.size,
              library_->size());
}

// 0 when the L1 entry names no L2 table.
Result<uint64_t> QcowReader::l2_table_at(const MetadataSlice& l1, uint64_t entry_offset) const {
  const auto table = l1.be<uint64_t>(entry_offset);
  if (table == 0) return 0;
  const uint64_t entry = (entry_offset - header_.l1_table_offset) / kEntryBytes;
  if (!range_within(table, header_.l2_bytes(), file_->size())) {
    return in_file(
        fail(ErrorKind::kTruncated,
             "L1 entry {} names an L2 table of {} bytes at {}: it ends beyond the end of the file, "
             "which has {} bytes; the file is truncated or damaged",
             entry, header_.l2_bytes(), table, file_->size()),
        file_->name(), entry_offset);
  }
  if (!is_aligned(table, kEntryBytes) ||
      overlaps_metadata({.offset = table, .length = header_.l2_bytes()})) {
    return in_file(fail(ErrorKind::kMalformed,
                        "L1 entry {} names an L2 table at {}, which is no multiple of {} or where "
                        "the header or the L1 table lies: it is damaged",
                        entry, table, kEntryBytes),
                   file_->name(), entry_offset);
  }
  return table;
}

Result<Extent> QcowReader::map(uint64_t offset, uint64_t length, MapFor purpose) const {
  const uint64_t l1_at = header_.l1_table_offset + offset / header_.l2_span() * kEntryBytes;
  const MetadataSlice l1 = TRY(tables_.slice_at(l1_at, kEntryBytes, purpose));
  const uint64_t table = TRY(l2_table_at(l1, l1_at));
  if (table == 0) return run_without_l2(l1, l1_at, offset, length);

  const uint64_t l2_at =
      table + offset / header_.cluster_size() % header_.l2_entries() * kEntryBytes;
  const MetadataSlice l2 = TRY(tables_.slice_at(l2_at, kEntryBytes, purpose));
  const auto cluster =
      parse_l2_entry(header_, offset - offset % header_.cluster_size(), l2.be<uint64_t>(l2_at));
  if (!cluster) return in_file(cluster.error(), file_->name(), l2_at);
  if (cluster->kind == Cluster::Kind::kAbsent) {
    return run_without_clusters(l2, l2_at, table + header_.l2_bytes(), offset, length);
  }
  return stored_cluster(*cluster, table, offset, length);
}

// A run of L1 entries without L2 table, as far as `l1` shows it.
Extent QcowReader::run_without_l2(const MetadataSlice& l1, uint64_t entry_offset, uint64_t offset,
                                  uint64_t length) const {
  const uint64_t span = header_.l2_span();
  Extent extent;
  extent.kind = Extent::Kind::kParent;
  extent.length = span - offset % span;
  for (uint64_t at = entry_offset + kEntryBytes;
       extent.length < length && l1.holds(at, kEntryBytes) && l1.be<uint64_t>(at) == 0;
       at += kEntryBytes) {
    extent.length += span;
  }
  extent.length = std::min(extent.length, length);
  return extent;
}

// A run of L2 entries of 0, as far as `l2` shows it.
Extent QcowReader::run_without_clusters(const MetadataSlice& l2, uint64_t entry_offset,
                                        uint64_t table_end, uint64_t offset,
                                        uint64_t length) const {
  const uint64_t cluster_size = header_.cluster_size();
  Extent extent;
  extent.kind = Extent::Kind::kParent;
  extent.length = cluster_size - offset % cluster_size;
  for (uint64_t at = entry_offset + kEntryBytes;
       extent.length < length && at < table_end && l2.holds(at, kEntryBytes) &&
       l2.be<uint64_t>(at) == 0;
       at += kEntryBytes) {
    extent.length += cluster_size;
  }
  extent.length = std::min(extent.length, length);
  return extent;
}

Result<Extent> QcowReader::stored_cluster(const Cluster& cluster, uint64_t l2_offset,
                                          uint64_t offset, uint64_t length) const {
  const uint64_t in_cluster = offset % header_.cluster_size();
  const uint64_t start = offset - in_cluster;
  if (!range_within(cluster.offset, cluster.length, file_->size())) {
    return in_file(fail(ErrorKind::kTruncated,
                        "the cluster of guest offset {} ends beyond the end of the file, which has "
                        "{} bytes: it is truncated or damaged",
                        start, file_->size()),
                   file_->name(), cluster.offset);
  }
  const FileRange range{.offset = cluster.offset, .length = cluster.length};
  if (overlaps_metadata(range) ||
      range.overlaps({.offset = l2_offset, .length = header_.l2_bytes()})) {
    return in_file(fail(ErrorKind::kMalformed,
                        "the data of guest offset {} would lie at {}, where the header, the L1 or "
                        "its L2 table lies: the L2 entry is damaged",
                        start, cluster.offset),
                   file_->name(), cluster.offset);
  }
  Extent extent;
  extent.kind = Extent::Kind::kCopied;
  extent.source = file_.get();
  extent.source_offset = cluster.offset;
  extent.cluster_start = start;
  extent.cluster_length =
      static_cast<uint32_t>(std::min(header_.cluster_size(), header_.size - start));
  extent.stored_length = cluster.kind == Cluster::Kind::kDeflate ? cluster.length : 0;
  extent.length = std::min(length, extent.cluster_length - in_cluster);
  return extent;
}

Result<void> QcowReader::load_cluster(const Extent& extent, MutableByteSpan out) const {
  if (extent.stored_length > 0) {
    const StreamBuffer stream(static_cast<size_t>(extent.stored_length));
    TRY(file_->read_at(extent.source_offset, stream.bytes()));
    auto unpacked = decompress(Codec::kDeflate, stream.bytes(), out);
    if (!unpacked) {
      return with_context(
          in_file(std::move(unpacked).error(), file_->name(), extent.source_offset),
          fmt::format("compressed cluster of guest offset {}: ", extent.cluster_start));
    }
  }
  return library_->read_at(extent.cluster_start, out);
}

}  // namespace underlay::qcow
