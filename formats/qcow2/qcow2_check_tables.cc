#include "formats/qcow2/qcow2_check_tables.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace underlay {
namespace {

using Kind = Finding::Kind;

constexpr uint64_t kL1EntryBytes = 8;
constexpr size_t kPieceBytes = 64 << 10;  // of an L1 table that are read at once

constexpr uint64_t kEntriesBetweenProgress = 64;  // of an L1 table

// L2 tables that are gathered before they are read; 32 MiB of memory. An L1 table that maps
// nothing but 64 KiB clusters names fewer up to 512 TiB of disk.
constexpr size_t kMaxNamed = 1 << 20;

}  // namespace

Qcow2TableCheck::Qcow2TableCheck(Qcow2CheckPass& pass, const Options& options)
    : pass_(pass),
      header_(pass.header()),
      options_(options),
      bytes_(static_cast<size_t>(header_.cluster_size())) {}

Result<void> Qcow2TableCheck::add_active(const Qcow2L1& l1, uint64_t named_at) {
  return add(l1, 0, named_at);
}

Result<void> Qcow2TableCheck::add_snapshot(const Qcow2L1& l1, uint64_t times, uint64_t named_at) {
  return add(l1, static_cast<uint32_t>(times), named_at);
}

Result<void> Qcow2TableCheck::add(const Qcow2L1& l1, uint32_t times, uint64_t named_at) {
  pass_.use(Qcow2Use::kL1Table, l1.offset, l1.bytes(), std::max<uint32_t>(times, 1), named_at);
  std::vector<std::byte> piece;
  uint64_t passed = 0;  // entries that name no table
  for (uint64_t done = 0; done < l1.bytes(); done += piece.size()) {
    piece.resize(static_cast<size_t>(std::min<uint64_t>(kPieceBytes, l1.bytes() - done)));
    if (auto read = pass_.read(l1.offset + done, piece); !read) {
      pass_.tell("l1-table-unreadable", read.error());
      return {};
    }
    for (size_t at = 0; at < piece.size(); at += kL1EntryBytes) {
      const auto entry = load_be<uint64_t>(piece, at);
      const uint64_t index = (done + at) / kL1EntryBytes;
      if (entry != 0 && names_table(l1, times, index, entry)) {
        if (named_.size() == kMaxNamed) TRY(check_tables());
        named_.push_back({.offset = split_qcow2_l1_entry(entry).offset,
                          .guest_offset = index * header_.l2_span(),
                          .disk_size = l1.disk_size,
                          .times = times});
      } else {
        ++passed;
      }
      // Each may have taken a read, of its refcount.
      if (index % kEntriesBetweenProgress == 0) TRY(pass_.advance(std::exchange(passed, 0)));
    }
    TRY(pass_.advance(std::exchange(passed, 0)));
  }
  return {};
}

// Is there a table that can be read? Counts it, and tells what is wrong in the entry.
bool Qcow2TableCheck::names_table(const Qcow2L1& l1, uint32_t times, uint64_t index,
                                  uint64_t entry) {
  const uint64_t at = l1.offset + index * kL1EntryBytes;
  const uint64_t counted = std::max<uint32_t>(times, 1);
  const Qcow2L1Bits bits = split_qcow2_l1_entry(entry);
  if (bits.reserved != 0) {
    pass_.tell(Kind::kCorruption, "l1-entry-reserved-bits", at, counted,
               "L1 entry {} ({:#x}) has reserved bits set", index, entry);
  }
  if (bits.offset == 0) {
    pass_.tell(Kind::kCorruption, "l1-entry-without-table", at, counted,
               "L1 entry {} ({:#x}) names no L2 table, but is not 0", index, entry);
    return false;
  }
  if (!is_aligned(bits.offset, header_.cluster_size())) {
    pass_.tell(Kind::kCorruption, "l2-table-unaligned", at, counted,
               "L1 entry {} ({:#x}) names an L2 table at no multiple of {} (a cluster)", index,
               entry, header_.cluster_size());
  }
  pass_.use(Qcow2Use::kL2Table, bits.offset, header_.cluster_size(), counted, at);
  if (times == 0) check_copied_l2(at, bits);
  return bits.offset < pass_.file().size();
}

// "Copied" says that the refcount is 1, so that writing needs no copy. QEMU looks at the active
// tables only.
void Qcow2TableCheck::check_copied_l2(uint64_t at, const Qcow2L1Bits& bits) {
  if (options_.refcounts == nullptr || !pass_.first()) return;
  const auto refcount = options_.refcounts->at(bits.offset >> header_.cluster_bits);
  if (!refcount || (*refcount == 1) == bits.copied)
    return;  // what cannot be read is told elsewhere
  pass_.tell(Kind::kCorruption, "l2-table-copied-flag", at, 1,
             "the L1 entry's flag \"copied\" is {}, but its L2 table at {} has refcount {}",
             bits.copied ? 1 : 0, bits.offset, *refcount);
}

Result<void> Qcow2TableCheck::finish() { return check_tables(); }

Result<void> Qcow2TableCheck::check_tables() {
  // The active one's place comes first among those that name the same table.
  std::sort(named_.begin(), named_.end(), [](const Named& one, const Named& other) {
    if (one.offset != other.offset) return one.offset < other.offset;
    if ((one.times == 0) != (other.times == 0)) return one.times == 0;
    return one.guest_offset < other.guest_offset;
  });
  for (size_t i = 0; i < named_.size();) {
    const size_t first = i;
    Table table{.offset = named_[i].offset,
                .guest_offset = named_[i].guest_offset,
                .disk_size = named_[i].disk_size};
    for (; i < named_.size() && named_[i].offset == table.offset; ++i) {
      if (named_[i].times == 0) ++table.active_times;
      table.times += std::max<uint32_t>(named_[i].times, 1);
    }
    check_table(table);
    TRY(pass_.advance(i - first));
  }
  named_.clear();
  return {};
}

void Qcow2TableCheck::check_table(Table& table) {
  if (auto read = pass_.read(table.offset, bytes_); !read) {
    pass_.tell("l2-table-unreadable", read.error(), table.times);
    return;
  }
  const bool extended = header_.extended_l2();
  const uint32_t width = header_.l2_entry_bytes();
  Entry entry;
  entry.at = table.offset;
  entry.guest_offset = table.guest_offset;
  for (size_t at = 0; at < bytes_.size(); at += width) {
    entry.word = load_be<uint64_t>(bytes_, at);
    const uint64_t bitmap = extended ? load_be<uint64_t>(bytes_, at + 8) : 0;
    if (entry.word != 0 || bitmap != 0) {
      entry.bits = split_qcow2_l2_entry(header_, entry.word, bitmap);
      check_entry(table, entry);
    }
    entry.at += width;
    entry.guest_offset += header_.cluster_size();
  }
}

template <class... Args>
void Qcow2TableCheck::tell(const Table& table, const Entry& entry, std::string_view code,
                           fmt::format_string<Args...> format, Args&&... args) {
  pass_.tell(Kind::kCorruption, table.times, [&] {
    return Finding{.kind = Kind::kCorruption,
                   .code = std::string(code),
                   .message = fmt::format("L2 entry {:#x} of guest offset {}{}: {}", entry.word,
                                          entry.guest_offset,
                                          table.active_times == 0 ? " (of a snapshot)" : "",
                                          fmt::format(format, std::forward<Args>(args)...)),
                   .offset = entry.at};
  });
}

void Qcow2TableCheck::check_entry(Table& table, const Entry& entry) {
  const Qcow2L2Bits& bits = entry.bits;
  if (bits.compressed) return check_compressed(table, entry);
  if (bits.reserved != 0) tell(table, entry, "l2-entry-reserved-bits", "has reserved bits set");
  if (bits.zeros && header_.extended_l2()) {
    tell(table, entry, "l2-entry-zero-flag",
         "has bit 0 set, which is reserved with extended L2 entries");
  } else if (bits.zeros && header_.version < 3) {
    tell(table, entry, "l2-entry-zero-flag", "a zero cluster, which version 2 does not have");
  }
  const bool is_plain_zero = bits.zeros && !header_.extended_l2() && bits.offset == 0;
  if (is_plain_zero || !has_place(header_, bits)) return check_unallocated(table, entry);
  check_standard(table, entry);
}

void Qcow2TableCheck::check_compressed(const Table& table, const Entry& entry) {
  const Qcow2L2Bits& bits = entry.bits;
  if (bits.copied) {
    tell(table, entry, "compressed-cluster-copied-flag",
         "the flag \"copied\" of a compressed cluster must not be set");
  }
  if (header_.external_data()) {
    return tell(table, entry, "compressed-cluster-in-data-file",
                "a compressed cluster, which an image with a data file cannot have");
  }
  if (bits.bitmap != 0) {
    return tell(table, entry, "compressed-cluster-with-subclusters",
                "a compressed cluster has no subclusters, but their bitmap is {:#x}", bits.bitmap);
  }
  pass_.use(Qcow2Use::kCompressed, bits.offset, bits.stored_length, table.times, entry.at);
  if (!pass_.first()) return;
  CheckTotals& totals = pass_.report().totals;
  totals.allocated += table.active_times;
  totals.compressed += table.active_times;
  totals.fragmented += table.active_times;  // as QEMU counts them
}

void Qcow2TableCheck::check_unallocated(const Table& table, const Entry& entry) {
  if (entry.bits.stored_parts() == 0) return;
  tell(table, entry, "subclusters-without-cluster",
       "subclusters are allocated (bitmap {:#x}), but the cluster is not", entry.bits.bitmap);
}

void Qcow2TableCheck::check_standard(Table& table, const Entry& entry) {
  const Qcow2L2Bits& bits = entry.bits;
  if ((bits.zero_parts() & bits.stored_parts()) != 0) {
    tell(table, entry, "subclusters-contradict",
         "a subcluster is both allocated and zeros (bitmap {:#x})", bits.bitmap);
  }
  if (!is_aligned(bits.offset, header_.cluster_size())) {
    tell(table, entry, "cluster-unaligned",
         "its cluster does not lie at a multiple of {} (the cluster size)", header_.cluster_size());
  }
  if (table.active_times != 0 && pass_.first()) {
    CheckTotals& totals = pass_.report().totals;
    totals.allocated += table.active_times;
    const bool follows = table.next_cluster == 0 || bits.offset == table.next_cluster;
    if (!follows) totals.fragmented += table.active_times;
    table.next_cluster = bits.offset + header_.cluster_size();
  }
  if (header_.external_data()) {
    check_data_file(table, entry);
  } else {
    pass_.use(Qcow2Use::kData, bits.offset, header_.cluster_size(), table.times, entry.at);
    check_place(table, entry);
  }
  if (table.active_times != 0) check_copied(table, entry);
}

// Bytes of the cluster, from its first one on, that are data which the disk shows.
uint64_t Qcow2TableCheck::needed_bytes(const Table& table, const Entry& entry) const {
  const uint64_t cluster_size = header_.cluster_size();
  uint64_t stored = cluster_size;
  if (header_.extended_l2()) {
    const auto parts = 32 - static_cast<uint64_t>(std::countl_zero(entry.bits.stored_parts()));
    stored = parts * (cluster_size / 32);
  } else if (entry.bits.zeros) {
    stored = 0;
  }
  return std::min(stored, table.disk_size - std::min(entry.guest_offset, table.disk_size));
}

// The last cluster of a file need not be whole, but what the disk shows of it must be there. QEMU
// shows zeros for what is lost.
void Qcow2TableCheck::check_place(const Table& table, const Entry& entry) {
  const uint64_t size = pass_.file().size();
  if (entry.bits.offset >= size) return;  // told
  if (range_within(entry.bits.offset, needed_bytes(table, entry), size)) return;
  tell(table, entry, "cluster-cut",
       "its cluster at {} is cut off by the end of the file, which has {} bytes", entry.bits.offset,
       size);
}

// In a data file, every cluster has one place that it can be at.
void Qcow2TableCheck::check_data_file(const Table& table, const Entry& entry) {
  if (entry.bits.offset != entry.guest_offset) {
    return tell(table, entry, "data-file-offset",
                "its offset in the data file, {}, is not its guest offset", entry.bits.offset);
  }
  const uint64_t needed = needed_bytes(table, entry);
  if (!options_.data_file_size || needed == 0 ||
      range_within(entry.bits.offset, needed, *options_.data_file_size)) {
    return;
  }
  tell(table, entry, "data-file-beyond-end",
       "its cluster ends beyond the end of the data file, which has {} bytes",
       *options_.data_file_size);
}

void Qcow2TableCheck::check_copied(const Table& table, const Entry& entry) {
  if (options_.refcounts == nullptr || !pass_.first()) return;
  uint64_t refcount = 1;
  if (!header_.external_data()) {
    const auto kept = options_.refcounts->at(entry.bits.offset >> header_.cluster_bits);
    if (!kept) return;  // told elsewhere
    refcount = *kept;
  }
  if ((refcount == 1) == entry.bits.copied) return;
  pass_.tell(Kind::kCorruption, "cluster-copied-flag", entry.at, table.active_times,
             "L2 entry {:#x} of guest offset {}: its flag \"copied\" is {}, but its cluster at {} "
             "has refcount {}",
             entry.word, entry.guest_offset, entry.bits.copied ? 1 : 0, entry.bits.offset,
             refcount);
}

}  // namespace underlay
