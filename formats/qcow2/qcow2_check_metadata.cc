#include "formats/qcow2/qcow2_check_metadata.h"

#include <algorithm>
#include <string>
#include <unordered_set>

#include "formats/qcow2/qcow2_bitmap_directory.h"
#include "formats/qcow2/qcow2_encryption.h"
#include "formats/qcow2/qcow2_snapshot_table.h"

namespace underlay {
namespace {

using Kind = Finding::Kind;

// Where the header names them.
constexpr uint64_t kSnapshotsAt = 60;
constexpr uint64_t kBitmapTableOffsetAt = 0;  // in a directory entry

constexpr size_t kPieceBytes = 64 << 10;  // of a bitmap table that are read at once

// False when its L1 table cannot be walked.
bool check_snapshot(Qcow2CheckPass& pass, const Qcow2SnapshotEntry& entry, const Qcow2L1& l1) {
  const Qcow2Header& header = pass.header();
  const std::string label =
      fmt::format("snapshot {} (\"{}\")", printable(entry.id, 80), printable(entry.name, 200));
  const uint64_t at = entry.offset;
  if (!is_aligned(l1.offset, header.cluster_size())) {
    pass.tell(Kind::kCorruption, "snapshot-l1-table", at, 1,
              "{}: l1_table_offset is {}: must be a multiple of {} (a cluster)", label, l1.offset,
              header.cluster_size());
    return false;
  }
  if (l1.bytes() > Qcow2Header::kMaxL1Bytes) {
    pass.tell(Kind::kCorruption, "snapshot-l1-table", at, 1,
              "{}: l1_size is {} entries: the limit is {}", label, l1.entries,
              Qcow2Header::kMaxL1Bytes / 8);
    return false;
  }
  if (auto checked = check_qcow2_l1(header, l1); !checked) {
    pass.tell(Kind::kCorruption, "snapshot-l1-unfit", at, 1, "{}: {}", label,
              checked.error().message);
  }
  return true;
}

// Snapshots that have the same table become one.
std::vector<Qcow2SnapshotL1> merged(std::vector<Qcow2SnapshotL1> all) {
  std::stable_sort(all.begin(), all.end(),
                   [](const Qcow2SnapshotL1& one, const Qcow2SnapshotL1& other) {
                     return one.l1.offset != other.l1.offset ? one.l1.offset < other.l1.offset
                                                             : one.l1.entries < other.l1.entries;
                   });
  std::vector<Qcow2SnapshotL1> distinct;
  for (const Qcow2SnapshotL1& snapshot : all) {
    if (!distinct.empty() && distinct.back().l1.offset == snapshot.l1.offset &&
        distinct.back().l1.entries == snapshot.l1.entries) {
      distinct.back().times += snapshot.times;
      continue;
    }
    distinct.push_back(snapshot);
  }
  return distinct;
}

// Tables lie beside each other: together they have no more bytes than the file. An image whose
// tables have more is made to keep us busy.
class TableBytes {
 public:
  explicit TableBytes(Qcow2CheckPass& pass) : pass_(pass), left_(pass.file().size()) {}

  // False, and told, when there are too many.
  bool take(uint64_t bytes, std::string_view what, uint64_t named_at) {
    if (bytes <= left_) {
      left_ -= bytes;
      return true;
    }
    pass_.tell(Kind::kFailure, "tables-exceed-file", named_at, 1,
               "the {} from here on are not looked at: together they have more bytes than the "
               "file, so that they must overlap",
               what);
    return false;
  }

 private:
  Qcow2CheckPass& pass_;
  uint64_t left_;
};

// False when its table cannot be walked.
bool check_bitmap(Qcow2CheckPass& pass, const Qcow2BitmapDirectory::Item& item) {
  const std::string label = fmt::format("bitmap \"{}\"", printable(item.name, 200));
  Qcow2BitmapEntry entry = item.entry;
  if ((entry.flags & Qcow2BitmapEntry::kInUse) != 0) {
    pass.tell(Kind::kNotice, "bitmap-in-use", item.offset, 1,
              "{} is inconsistent and cannot be used: its last writer did not close the image",
              label);
    // Such a one need not fit the disk.
    entry.flags &= ~Qcow2BitmapEntry::kInUse;
  }
  if (auto checked = check_qcow2_bitmap(pass.header(), entry); !checked) {
    const bool in_use = entry.flags != item.entry.flags;
    if (!in_use) {
      pass.tell(Kind::kCorruption, "bitmap-unusable", item.offset, 1, "{}: {}", label,
                checked.error().message);
    }
    const uint64_t cluster_size = pass.header().cluster_size();
    return entry.bitmap_table_size <= Qcow2BitmapEntry::kMaxBitmapBytes / cluster_size &&
           entry.bitmap_table_offset != 0 && is_aligned(entry.bitmap_table_offset, cluster_size);
  }
  return true;
}

Result<void> check_bitmap_table(Qcow2CheckPass& pass, const Qcow2BitmapEntry& entry) {
  std::vector<std::byte> piece;
  for (uint64_t done = 0; done < entry.table_bytes(); done += piece.size()) {
    piece.resize(static_cast<size_t>(std::min<uint64_t>(kPieceBytes, entry.table_bytes() - done)));
    const uint64_t start = entry.bitmap_table_offset + done;
    if (start >= pass.file().size()) return {};  // told
    if (auto read = pass.read(start, piece); !read) {
      pass.tell("bitmap-unreadable", read.error());
      return {};
    }
    for (size_t at = 0; at < piece.size(); at += 8) {
      const auto cluster =
          parse_qcow2_bitmap_table_entry(pass.header(), load_be<uint64_t>(piece, at));
      if (!cluster) {
        pass.tell(Kind::kCorruption, "bitmap-table-entry", start + at, 1, "{}",
                  cluster.error().message);
      } else if (cluster->host_offset != 0) {
        pass.use(Qcow2Use::kBitmap, cluster->host_offset, pass.header().cluster_size(), 1,
                 start + at);
      }
    }
    TRY(pass.advance(0));
  }
  return {};
}

}  // namespace

std::vector<Qcow2SnapshotL1> check_qcow2_snapshots(Qcow2CheckPass& pass) {
  const Qcow2Header& header = pass.header();
  if (header.external_data() && header.nb_snapshots != 0) {
    pass.tell(Kind::kCorruption, "snapshots-with-data-file", kSnapshotsAt, 1,
              "nb_snapshots is {}: an image with a data file cannot have snapshots",
              header.nb_snapshots);
  }
  std::vector<Qcow2SnapshotL1> all;
  Qcow2SnapshotTable table(pass.file(), header);
  TableBytes bytes(pass);
  while (!table.at_end()) {
    const auto entry = table.next();
    if (!entry) {
      pass.tell("snapshot-table-damaged", entry.error());
      break;
    }
    const auto disk_size = parse_qcow2_snapshot_disk_size(header, entry->extra);
    if (!disk_size) {
      pass.tell(Kind::kCorruption, "snapshot-without-disk-size", entry->offset, 1, "{}",
                disk_size.error().message);
    }
    const Qcow2L1 l1{.offset = entry->fixed.l1_table_offset,
                     .entries = entry->fixed.l1_size,
                     .disk_size = disk_size.value_or(0)};
    if (!check_snapshot(pass, *entry, l1)) continue;
    all.push_back({.l1 = l1, .times = 1, .named_at = entry->offset});
  }
  pass.use(Qcow2Use::kSnapshotTable, header.snapshots_offset, table.bytes(), 1, kSnapshotsAt);
  std::vector<Qcow2SnapshotL1> distinct = merged(std::move(all));
  for (size_t i = 0; i < distinct.size(); ++i) {
    if (bytes.take(distinct[i].l1.bytes(), "snapshots' L1 tables", distinct[i].named_at)) continue;
    distinct.resize(i);
  }
  return distinct;
}

void check_qcow2_luks_header(Qcow2CheckPass& pass, ByteSpan pointer) {
  if (pass.header().crypt_method != Qcow2Header::kLuks) return;
  const auto range = parse_qcow2_luks_pointer(pass.header(), pointer);
  if (!range) return pass.tell("luks-header", range.error());
  pass.use(Qcow2Use::kLuksHeader, range->offset, range->length, 1, 0);
}

Result<void> check_qcow2_bitmaps(Qcow2CheckPass& pass, ByteSpan extension) {
  const Qcow2Header& header = pass.header();
  if (extension.empty() || (header.autoclear_features & Qcow2Header::kBitmaps) == 0) return {};
  const auto bitmaps = parse_qcow2_bitmaps_extension(header, extension);
  if (!bitmaps) {
    pass.tell("bitmaps-extension", bitmaps.error());
    return {};
  }
  pass.use(Qcow2Use::kBitmap, bitmaps->bitmap_directory_offset, bitmaps->bitmap_directory_size, 1,
           0);
  if (!range_within(bitmaps->bitmap_directory_offset, bitmaps->bitmap_directory_size,
                    pass.file().size())) {
    return {};
  }
  // At most kMaxDirectoryBytes of names.
  std::unordered_set<std::string> names;
  TableBytes bytes(pass);
  Qcow2BitmapDirectory directory(pass.file(), *bitmaps);
  while (!directory.at_end()) {
    const auto item = directory.next();
    if (!item) {
      pass.tell("bitmap-directory-damaged", item.error());
      return {};
    }
    if (pass.first() && !names.emplace(item->name).second) {
      pass.tell(Kind::kCorruption, "bitmap-name-twice", item->offset, 1,
                "two bitmaps have the name \"{}\"", printable(item->name, 200));
    }
    if (!check_bitmap(pass, *item)) continue;
    const uint64_t named_at = item->offset + kBitmapTableOffsetAt;
    if (!bytes.take(item->entry.table_bytes(), "tables of bitmaps", named_at)) return {};
    pass.use(Qcow2Use::kBitmap, item->entry.bitmap_table_offset, item->entry.table_bytes(), 1,
             named_at);
    TRY(check_bitmap_table(pass, item->entry));
  }
  if (directory.rest() != 0) {
    pass.tell(Kind::kCorruption, "bitmap-directory-damaged", bitmaps->bitmap_directory_offset, 1,
              "bitmap_directory_size is {} bytes, but its {} bitmaps end {} bytes before that",
              bitmaps->bitmap_directory_size, bitmaps->nb_bitmaps, directory.rest());
  }
  return {};
}

void check_qcow2_refcount_blocks(Qcow2CheckPass& pass, const Qcow2References& references,
                                 const Qcow2Refcounts& refcounts) {
  const Qcow2Header& header = pass.header();
  for (uint64_t index = 0; index < refcounts.table_entries(); ++index) {
    const uint64_t at = refcounts.entry_offset(index);
    const auto entry = refcounts.entry(index);
    if (!entry) {
      pass.tell("refcount-table-unreadable", entry.error());
      return;
    }
    if (entry->reserved != 0) {
      pass.tell(Kind::kCorruption, "refcount-table-reserved-bits", at, 1,
                "refcount table entry {} has reserved bits set ({:#x})", index, entry->reserved);
      continue;
    }
    if (entry->offset == 0) continue;
    if (!is_aligned(entry->offset, header.cluster_size())) {
      pass.tell(Kind::kCorruption, "refcount-block-unaligned", at, 1,
                "refcount table entry {} names a block at {}: must be a multiple of {} (a cluster)",
                index, entry->offset, header.cluster_size());
      continue;
    }
    pass.use(Qcow2Use::kRefcountBlock, entry->offset, header.cluster_size(), 1, at);
    const uint64_t cluster = entry->offset >> header.cluster_bits;
    if (cluster < references.first() || cluster >= references.end()) continue;
    const Qcow2Uses& uses = references.at(cluster);
    // As QEMU counts: no further than a refcount can.
    const uint64_t count = std::min(uses.count(), refcounts.max());
    if (!uses.has(Qcow2Use::kRefcountBlock) || count == 1) continue;
    pass.report().add({.kind = Kind::kCorruption,
                       .code = "refcount-block-shared",
                       .message = fmt::format("the refcount block at {} is used {} times ({})",
                                              entry->offset, count, uses.names()),
                       .offset = at});
  }
}

}  // namespace underlay
