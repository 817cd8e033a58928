#include "formats/qcow2/qcow2_reader.h"

#include <algorithm>
#include <bit>

#include "formats/qcow2/qcow2_bitmap.h"

namespace underlay {
namespace {

constexpr uint64_t kL1EntryBytes = 8;

// The run of like parts of `cluster` at `in_cluster`; it ends with the cluster at the latest.
Extent run_in(const Qcow2Cluster& cluster, uint64_t cluster_size, uint64_t in_cluster) {
  const uint64_t part_size = cluster_size / Qcow2Cluster::kSubclusters;
  const uint64_t part = in_cluster / part_size;
  const auto run_of = [&](uint32_t mask) { return std::countr_one(mask >> part); };
  Extent extent;
  int parts = run_of(cluster.stored);
  if (parts > 0) {
    extent.kind = Extent::Kind::kData;
    extent.source_offset = cluster.host_offset + in_cluster;
  } else if ((parts = run_of(cluster.zeros)) > 0) {
    extent.kind = Extent::Kind::kZero;
    extent.reserved = cluster.reserved;
  } else {
    extent.kind = Extent::Kind::kParent;
    const uint32_t own = (cluster.stored | cluster.zeros) >> part;
    parts = std::min(std::countr_zero(own), static_cast<int>(Qcow2Cluster::kSubclusters - part));
  }
  extent.length = (part + static_cast<uint64_t>(parts)) * part_size - in_cluster;
  return extent;
}

// REQUIRES: there is one.
uint64_t first_stored_byte(const Qcow2Cluster& cluster, uint64_t cluster_size) {
  if (cluster.compressed) return cluster.host_offset;
  const auto part = static_cast<uint64_t>(std::countr_zero(cluster.stored));
  return cluster.host_offset + part * (cluster_size / Qcow2Cluster::kSubclusters);
}

// Does `next` go on where `run` ends?
bool continues(const Extent& run, const Extent& next) {
  if (run.kind != next.kind) return false;
  switch (run.kind) {
    case Extent::Kind::kData:
      return run.source_offset + run.length == next.source_offset;
    case Extent::Kind::kZero:
      return run.reserved == next.reserved;
    case Extent::Kind::kParent:
      return true;
    case Extent::Kind::kCompressed:
    case Extent::Kind::kCopied:
      return false;
  }
  return false;
}

}  // namespace

std::vector<const Source*> Qcow2Reader::sources() const {
  if (parts_.data_file) return {parts_.file.get(), parts_.data_file.get()};
  return {parts_.file.get()};
}

// Looked at only when one is asked for: no byte of the disk depends on it.
Result<std::unique_ptr<const DirtyBitmap>> Qcow2Reader::dirty_bitmap(std::string_view name) const {
  if (parts_.bitmaps.empty()) return nullptr;
  if ((parts_.header.autoclear_features & Qcow2Header::kBitmaps) == 0) {
    return fail(ErrorKind::kMalformed,
                "bitmap \"{}\": a program that knows no bitmaps has changed this image (autoclear "
                "feature bit 0 is not set), so all its bitmaps are inconsistent; qemu-img bitmap "
                "--add makes a new one",
                printable(name, 200));
  }
  const auto extension = TRY(parse_qcow2_bitmaps_extension(parts_.header, parts_.bitmaps));
  return find_qcow2_bitmap(parts_.file, caches_, parts_.header, extension, name);
}

Result<void> Qcow2Reader::check_tables() {
  const Qcow2L1& l1 = parts_.l1;
  if (!range_within(l1.offset, l1.bytes(), parts_.file->size())) {
    return in_file(fail(ErrorKind::kTruncated,
                        "the L1 table has {} bytes at {}: it ends beyond the end of the file, "
                        "which has {} bytes; the file is truncated or damaged",
                        l1.bytes(), l1.offset, parts_.file->size()),
                   parts_.file->name(), l1.offset);
  }
  TRY(places_.add_refcount_blocks(tables_));
  if (l1.bytes() > kMaxCheckedL1Bytes) return {};
  // What lies behind the disk's end in the table (the state of a virtual machine) is not served.
  const uint64_t used = div_round_up(l1.disk_size, parts_.header.l2_span());
  const uint64_t end = l1.offset + used * kL1EntryBytes;
  uint64_t checked_l2_bytes = 0;
  for (uint64_t at = l1.offset; at < end;) {
    const MetadataSlice slice = TRY(tables_.slice_at(at, kL1EntryBytes, MapFor::kRead));
    for (; at < end && slice.holds(at, kL1EntryBytes); at += kL1EntryBytes) {
      const uint64_t l2_offset = TRY(l2_table_at(slice, at));
      if (l2_offset == 0) continue;
      places_.add_l2_table(l2_offset);
      if (checked_l2_bytes >= kMaxCheckedL2Bytes) continue;
      TRY(check_clusters(l2_offset, (at - l1.offset) / kL1EntryBytes * parts_.header.l2_span()));
      checked_l2_bytes += cluster_size();
    }
  }
  places_.sort_l2_tables();
  return {};
}

// A file that was cut has lost the clusters at its end. An L2 entry that is wrong in itself only
// concerns its own cluster, and is reported when that is read.
Result<void> Qcow2Reader::check_clusters(uint64_t l2_offset, uint64_t guest_offset) const {
  const Source& file = cluster_file();
  const uint64_t width = parts_.header.l2_entry_bytes();
  const uint64_t end = l2_offset + parts_.header.l2_entries() * width;
  for (uint64_t at = l2_offset; at < end && guest_offset < size();) {
    const MetadataSlice l2 = TRY(tables_.slice_at(at, width, MapFor::kRead));
    for (; at < end && guest_offset < size() && l2.holds(at, width); at += width) {
      const auto cluster =
          parse_qcow2_l2_entry(parts_.header, guest_offset, l2.be<uint64_t>(at),
                               parts_.header.extended_l2() ? l2.be<uint64_t>(at + 8) : 0);
      const bool has_data = cluster && (cluster->compressed || cluster->stored != 0);
      if (has_data && first_stored_byte(*cluster, cluster_size()) >= file.size()) {
        return in_file(
            fail(ErrorKind::kTruncated,
                 "the cluster of guest offset {} lies at {}, beyond the end of the file, "
                 "which has {} bytes: it is truncated; copy it anew from where it is "
                 "whole",
                 guest_offset, cluster->host_offset, file.size()),
            file.name(), cluster->host_offset);
      }
      guest_offset += cluster_size();
    }
  }
  return {};
}

// 0 when the L1 entry names no L2 table.
Result<uint64_t> Qcow2Reader::l2_table_at(const MetadataSlice& l1, uint64_t entry_offset) const {
  const auto l2_offset = parse_qcow2_l1_entry(parts_.header, l1.be<uint64_t>(entry_offset));
  if (!l2_offset) return in_file(l2_offset.error(), parts_.file->name(), entry_offset);
  if (*l2_offset == 0) return 0;
  const uint64_t length = parts_.header.cluster_size();
  if (!range_within(*l2_offset, length, parts_.file->size())) {
    return in_file(
        fail(ErrorKind::kTruncated,
             "L1 entry {} names an L2 table of {} bytes at {}: it ends beyond the end of the file, "
             "which has {} bytes; the file is truncated or damaged",
             (entry_offset - parts_.l1.offset) / kL1EntryBytes, length, *l2_offset,
             parts_.file->size()),
        parts_.file->name(), entry_offset);
  }
  if (places_.hold_other_than_l2(*l2_offset)) {
    return in_file(fail(ErrorKind::kMalformed,
                        "L1 entry {} names an L2 table at {}, where the header, an L1 table, "
                        "refcounts or snapshots lie: it is damaged",
                        (entry_offset - parts_.l1.offset) / kL1EntryBytes, *l2_offset),
                   parts_.file->name(), entry_offset);
  }
  return *l2_offset;
}

Result<Extent> Qcow2Reader::map(uint64_t offset, uint64_t length, MapFor purpose) const {
  const uint64_t entry_offset = parts_.l1.offset + offset / parts_.header.l2_span() * kL1EntryBytes;
  const MetadataSlice l1 = TRY(tables_.slice_at(entry_offset, kL1EntryBytes, purpose));
  const uint64_t l2_offset = TRY(l2_table_at(l1, entry_offset));
  if (l2_offset == 0) return map_without_l2(l1, entry_offset, offset, length);
  return map_with_l2(l2_offset, offset, length, purpose);
}

// A run of L1 entries without L2 table, as far as `l1` shows it.
Result<Extent> Qcow2Reader::map_without_l2(const MetadataSlice& l1, uint64_t entry_offset,
                                           uint64_t offset, uint64_t length) const {
  const uint64_t span = parts_.header.l2_span();
  Extent extent;
  extent.kind = Extent::Kind::kParent;
  extent.length = span - offset % span;
  for (uint64_t at = entry_offset + kL1EntryBytes;
       extent.length < length && l1.holds(at, kL1EntryBytes); at += kL1EntryBytes) {
    if (l1.be<uint64_t>(at) != 0) break;
    extent.length += span;
  }
  extent.length = std::min(extent.length, length);
  return extent;
}

Result<Extent> Qcow2Reader::map_with_l2(uint64_t l2_offset, uint64_t offset, uint64_t length,
                                        MapFor purpose) const {
  const uint64_t width = parts_.header.l2_entry_bytes();
  const uint64_t cluster_size = parts_.header.cluster_size();
  const uint64_t end = l2_offset + parts_.header.l2_entries() * width;
  uint64_t at = l2_offset + offset / cluster_size % parts_.header.l2_entries() * width;
  const MetadataSlice l2 = TRY(tables_.slice_at(at, width, purpose));

  Extent run = TRY(map_cluster(l2, l2_offset, at, offset));
  // While the run ends with its cluster, the next one may go on with it. A wrong entry there is
  // the next call's to report.
  for (at += width; run.length < length && at < end && l2.holds(at, width); at += width) {
    if ((offset + run.length) % cluster_size != 0) break;
    const Result<Extent> next = map_cluster(l2, l2_offset, at, offset + run.length);
    if (!next || !continues(run, *next)) break;
    run.length += next->length;
  }
  return finish(run, offset, length);
}

// What the L2 entry at `entry_offset` says of `offset`, to the end of its cluster at most.
Result<Extent> Qcow2Reader::map_cluster(const MetadataSlice& l2, uint64_t l2_offset,
                                        uint64_t entry_offset, uint64_t offset) const {
  const uint64_t cluster_size = parts_.header.cluster_size();
  const uint64_t in_cluster = offset % cluster_size;
  const auto parsed =
      parse_qcow2_l2_entry(parts_.header, offset - in_cluster, l2.be<uint64_t>(entry_offset),
                           parts_.header.extended_l2() ? l2.be<uint64_t>(entry_offset + 8) : 0);
  if (!parsed) return in_file(parsed.error(), parts_.file->name(), entry_offset);
  const Qcow2Cluster& cluster = *parsed;
  if (cluster.compressed) {
    Extent extent;
    extent.kind = Extent::Kind::kCompressed;
    extent.length = cluster_size - in_cluster;
    extent.source_offset = cluster.host_offset;
    extent.cluster_start = offset - in_cluster;
    extent.cluster_length = static_cast<uint32_t>(cluster_size);
    extent.stored_length = cluster.stored_length;
    return extent;
  }
  const bool is_table = !parts_.data_file && cluster.stored != 0 &&
                        (cluster.host_offset == l2_offset || places_.hold(cluster.host_offset));
  if (is_table) {
    return in_file(fail(ErrorKind::kMalformed,
                        "the data of guest offset {} would lie at {}, where the header, an L1 or "
                        "L2 table, refcounts or snapshots lie: the L2 entry is damaged",
                        offset - in_cluster, cluster.host_offset),
                   parts_.file->name(), entry_offset);
  }
  return run_in(cluster, cluster_size, in_cluster);
}

// Cuts the run to what was asked for and to what its file has.
Result<Extent> Qcow2Reader::finish(Extent extent, uint64_t offset, uint64_t length) const {
  extent.length = std::min(extent.length, length);
  if (extent.kind != Extent::Kind::kData && extent.kind != Extent::Kind::kCompressed) return extent;

  const Source& file = cluster_file();
  if (extent.source_offset >= file.size()) {
    return in_file(fail(ErrorKind::kTruncated,
                        "the cluster of guest offset {} lies beyond the end of the file, which has "
                        "{} bytes: it is truncated or damaged",
                        offset, file.size()),
                   file.name(), extent.source_offset);
  }
  extent.source = &file;
  const uint64_t present = file.size() - extent.source_offset;
  if (extent.kind == Extent::Kind::kCompressed) {
    // The last sector of the stream may be cut off behind the stream's end.
    extent.stored_length = std::min(extent.stored_length, present);
    return extent;
  }
  extent.length = std::min(extent.length, present);
  if (parts_.cipher) return as_decrypted(extent, offset);
  return extent;
}

// Encrypted clusters are loaded in pieces that lie within one run: clusters, subclusters, or parts
// of large ones. Compressed clusters are not encrypted: QEMU writes and reads them so.
Extent Qcow2Reader::as_decrypted(Extent extent, uint64_t offset) const {
  const uint64_t run =
      cluster_size() / (parts_.header.extended_l2() ? Qcow2Cluster::kSubclusters : 1);
  const uint64_t piece = std::min(run, kMaxDecryptedBytes);
  const uint64_t skip = offset % piece;
  extent.kind = Extent::Kind::kCopied;
  extent.cluster_start = offset - skip;
  extent.source_offset -= skip;
  extent.cluster_length =
      static_cast<uint32_t>(std::min(piece, cluster_file().size() - extent.source_offset));
  extent.length = std::min(extent.length, extent.cluster_length - skip);
  return extent;
}

Result<void> Qcow2Reader::load_decrypted(const Extent& extent, MutableByteSpan out) const {
  TRY(extent.source->read_at(extent.source_offset, out));
  if (out.size() % SectorCipher::kSectorBytes != 0) {
    return in_file(fail(ErrorKind::kTruncated,
                        "the encrypted cluster of guest offset {} ends inside a sector, with the "
                        "file: it is truncated",
                        extent.cluster_start),
                   extent.source->name(), extent.source_offset);
  }
  auto decrypted = parts_.cipher->decrypt(extent.source_offset / SectorCipher::kSectorBytes, out);
  if (!decrypted) {
    return in_file(std::move(decrypted).error(), extent.source->name(), extent.source_offset);
  }
  return {};
}

Result<void> Qcow2Reader::load_cluster(const Extent& extent, MutableByteSpan out) const {
  if (extent.kind == Extent::Kind::kCopied) return load_decrypted(extent, out);
  // At most two clusters, by the width of the sector field.
  const StreamBuffer stream(static_cast<size_t>(extent.stored_length));
  TRY(extent.source->read_at(extent.source_offset, stream.bytes()));
  auto unpacked = decompress(parts_.header.codec(), stream.bytes(), out);
  if (!unpacked) {
    return with_context(
        in_file(std::move(unpacked).error(), extent.source->name(), extent.source_offset),
        fmt::format("compressed cluster of guest offset {}: ", extent.cluster_start));
  }
  return {};
}

}  // namespace underlay
