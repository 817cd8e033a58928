#include "formats/qcow/qcow_check.h"

#include <algorithm>

#include "formats/file_range.h"
#include "formats/qcow/qcow_layout.h"

namespace underlay {
namespace qcow {
namespace {

using Kind = Finding::Kind;

// What lies at each multiple of the cluster's size, in a window of the file. Streams lie anywhere
// and share places with each other; a plain cluster has its place alone.
class Places {
 public:
  Places(uint64_t count, uint64_t window) : count_(count), window_(window) {}

  void begin(uint64_t first) {
    first_ = first;
    uses_.assign(static_cast<size_t>(std::min(window_, count_ - first)), 0);
    next_.reset();
  }
  std::optional<uint64_t> next() const { return next_; }

  // False when somebody is there who excludes it.
  bool take(uint64_t place, bool plain) {
    if (place < first_) return true;
    if (place - first_ >= uses_.size()) {
      if (!next_ || place < *next_) next_ = place;
      return true;
    }
    uint8_t& use = uses_[place - first_];
    const bool is_free = plain ? use == 0 : (use & kPlain) == 0;
    use |= plain ? kPlain : kStream;
    return is_free;
  }

 private:
  static constexpr uint8_t kPlain = 1;
  static constexpr uint8_t kStream = 2;

  uint64_t count_;
  uint64_t window_;
  uint64_t first_ = 0;
  std::vector<uint8_t> uses_;
  std::optional<uint64_t> next_;
};

class Check {
 public:
  Check(const Source& file, const Header& header, CheckReport& report, uint64_t window)
      : file_(file),
        header_(header),
        report_(report),
        places_(div_round_up(file.size(), header.cluster_size()), window),
        l2_(static_cast<size_t>(header.l2_bytes())) {}

  Result<void> run() {
    end_ = header_.l1_table_offset + header_.l1_bytes();
    TRY(find_tables());
    report_.totals.total = div_round_up(header_.size, header_.cluster_size());
    total_ = tables_.size();
    std::optional<uint64_t> start = 0;
    for (first_pass_ = true; start; first_pass_ = false) {
      places_.begin(*start);
      for (const Table& table : tables_) TRY(check_table(table));
      start = places_.next();
      total_ += tables_.size();
    }
    report_.totals.image_end_offset = end_;
    return {};
  }

 private:
  // An L2 table in the file, of at most kMaxL1Bytes / kEntryBytes.
  struct Table {
    uint64_t offset = 0;
    uint64_t guest_offset = 0;
  };

  template <class... Args>
  void tell(std::string code, uint64_t offset, fmt::format_string<Args...> format, Args&&... args) {
    report_.add({.kind = Kind::kCorruption,
                 .code = std::move(code),
                 .message = fmt::format(format, std::forward<Args>(args)...),
                 .offset = offset});
  }

  bool overlaps_front(const FileRange& range) const {
    return range.overlaps({.offset = 0, .length = kHeaderBytes}) ||
           range.overlaps({.offset = header_.l1_table_offset, .length = header_.l1_bytes()});
  }

  Result<void> find_tables() {
    std::vector<std::byte> l1(static_cast<size_t>(header_.l1_bytes()));
    TRY(file_.read_at(header_.l1_table_offset, l1));
    for (uint64_t index = 0; index < header_.l1_entries(); ++index) {
      const auto offset = load_be<uint64_t>(l1, static_cast<size_t>(index * kEntryBytes));
      if (offset != 0) find_table(index, offset);
    }
    std::sort(tables_.begin(), tables_.end(), [](const Table& one, const Table& other) {
      return one.offset != other.offset ? one.offset < other.offset
                                        : one.guest_offset < other.guest_offset;
    });
    for (size_t i = 1; i < tables_.size(); ++i) {
      if (tables_[i].offset - tables_[i - 1].offset >= header_.l2_bytes()) continue;
      tell("l2-tables-overlap", tables_[i].offset,
           "the L2 tables of guest offsets {} and {}, at {} and {}, overlap",
           tables_[i - 1].guest_offset, tables_[i].guest_offset, tables_[i - 1].offset,
           tables_[i].offset);
    }
    // One that is named again and again is gone through once.
    const auto same = [](const Table& one, const Table& other) {
      return one.offset == other.offset;
    };
    tables_.erase(std::unique(tables_.begin(), tables_.end(), same), tables_.end());
    return {};
  }

  void find_table(uint64_t index, uint64_t offset) {
    const uint64_t at = header_.l1_table_offset + index * kEntryBytes;
    if (!range_within(offset, header_.l2_bytes(), file_.size())) {
      return tell("l2-table-beyond-end", at,
                  "L1 entry {} names an L2 table of {} bytes at {}: it ends beyond the end of the "
                  "file, which has {} bytes",
                  index, header_.l2_bytes(), offset, file_.size());
    }
    if (!is_aligned(offset, kEntryBytes)) {
      return tell("l2-table-unaligned", at,
                  "L1 entry {} names an L2 table at {}: must be a multiple of {}", index, offset,
                  kEntryBytes);
    }
    if (overlaps_front({.offset = offset, .length = header_.l2_bytes()})) {
      return tell("overlap", at,
                  "L1 entry {} names an L2 table at {}, where the header or the L1 table lies",
                  index, offset);
    }
    end_ = std::max(end_, offset + header_.l2_bytes());
    tables_.push_back({.offset = offset, .guest_offset = index * header_.l2_span()});
  }

  Result<void> check_table(const Table& table) {
    TRY(report_.progress(done_++, total_));
    if (auto read = file_.read_at(table.offset, l2_); !read) {
      if (first_pass_) report_.add("l2-table-unreadable", read.error());
      return {};
    }
    uint64_t next = 0;  // where the cluster before ended
    for (uint64_t i = 0; i < header_.l2_entries(); ++i) {
      const auto entry = load_be<uint64_t>(l2_, static_cast<size_t>(i * kEntryBytes));
      if (entry == 0) continue;
      check_entry(table.offset + i * kEntryBytes, table.guest_offset + i * header_.cluster_size(),
                  entry, next);
    }
    return {};
  }

  void check_entry(uint64_t at, uint64_t guest_offset, uint64_t entry, uint64_t& next) {
    const auto cluster = parse_l2_entry(header_, guest_offset, entry);
    if (!cluster) {
      if (first_pass_) tell("l2-entry", at, "{}", cluster.error().message);
      return;
    }
    const bool plain = cluster->kind == Cluster::Kind::kPlain;
    if (first_pass_) {
      count(*cluster, next);
      if (!check_place(at, guest_offset, *cluster)) return;
    } else if (!range_within(cluster->offset, cluster->length, file_.size())) {
      return;
    }
    const uint64_t last = (cluster->offset + cluster->length - 1) >> header_.cluster_bits;
    for (uint64_t place = cluster->offset >> header_.cluster_bits; place <= last; ++place) {
      if (places_.take(place, plain)) continue;
      tell("clusters-overlap", at,
           "the cluster of guest offset {} lies at {}, where another cluster lies", guest_offset,
           cluster->offset);
    }
  }

  void count(const Cluster& cluster, uint64_t& next) {
    CheckTotals& totals = report_.totals;
    const bool plain = cluster.kind == Cluster::Kind::kPlain;
    ++totals.allocated;
    if (!plain) ++totals.compressed;
    if (!plain || (next != 0 && cluster.offset != next)) ++totals.fragmented;
    if (plain) next = cluster.offset + cluster.length;
  }

  // False when it has no place in the file.
  bool check_place(uint64_t at, uint64_t guest_offset, const Cluster& cluster) {
    if (!range_within(cluster.offset, cluster.length, file_.size())) {
      tell("cluster-beyond-end", at,
           "the cluster of guest offset {} has {} bytes at {}: it ends beyond the end of the file, "
           "which has {} bytes",
           guest_offset, cluster.length, cluster.offset, file_.size());
      return false;
    }
    const FileRange range{.offset = cluster.offset, .length = cluster.length};
    end_ = std::max(end_, cluster.offset + cluster.length);
    if (overlaps_front(range) || overlaps_table(range)) {
      tell(
          "overlap", at,
          "the cluster of guest offset {} lies at {}, where the header, the L1 or an L2 table lies",
          guest_offset, cluster.offset);
    }
    return true;
  }

  // The last table that begins before the range's end is the one that reaches furthest into it.
  bool overlaps_table(const FileRange& range) const {
    const auto behind =
        std::lower_bound(tables_.begin(), tables_.end(), range.offset + range.length,
                         [](const Table& table, uint64_t offset) { return table.offset < offset; });
    if (behind == tables_.begin()) return false;
    return range.overlaps({.offset = std::prev(behind)->offset, .length = header_.l2_bytes()});
  }

  const Source& file_;
  const Header& header_;
  CheckReport& report_;
  Places places_;
  std::vector<std::byte> l2_;
  std::vector<Table> tables_;
  uint64_t end_ = 0;
  uint64_t done_ = 0;
  uint64_t total_ = 0;
  bool first_pass_ = true;
};

}  // namespace
}  // namespace qcow

Result<void> check_qcow_by(uint64_t window, const FileToInspect& image, CheckReport& report) {
  const Source& file = *image.source;
  std::vector<std::byte> head(std::min<uint64_t>(qcow::kHeaderBytes, file.size()));
  TRY(file.read_at(0, head));
  const qcow::Header header = TRY(qcow::parse_header(head));
  if (!range_within(header.l1_table_offset, header.l1_bytes(), file.size())) {
    return fail(ErrorKind::kTruncated,
                "the L1 table has {} bytes at {}: it ends beyond the end of the file, which has {} "
                "bytes; the file is truncated or damaged",
                header.l1_bytes(), header.l1_table_offset, file.size());
  }
  return qcow::Check(file, header, report, window).run();
}

Result<void> check_qcow(const FileToInspect& image, CheckReport& report) {
  return check_qcow_by(kQcowCheckWindow, image, report);
}

}  // namespace underlay
