#include "formats/vmdk/vmdk_extent_check.h"

#include <algorithm>

#include "formats/codec.h"
#include "formats/vmdk/vmdk_directory.h"
#include "formats/vmdk/vmdk_head.h"
#include "formats/vmdk/vmdk_unused.h"

namespace underlay {
namespace {

using EntryKind = VmdkEntry::Kind;
using Kind = Finding::Kind;
using Placement = VmdkGeometry::Placement;

constexpr uint64_t kSliceBytes = 64 << 10;  // of tables, read at once

uint64_t load_entry(ByteSpan bytes, uint64_t index, uint64_t width) {
  const auto at = static_cast<size_t>(index * width);
  return width == 8 ? load_le<uint64_t>(bytes, at) : load_le<uint32_t>(bytes, at);
}

std::string misplaced(std::string_view what, Placement placement) {
  switch (placement) {
    case Placement::kUnknown:
      return fmt::format("{}-unknown", what);
    case Placement::kBeyondEnd:
      return fmt::format("{}-beyond-end", what);
    default:
      return fmt::format("{}-in-metadata", what);
  }
}

class ExtentCheck {
 public:
  ExtentCheck(const VmdkExtentToCheck& extent, CheckReport& report,
              const VmdkCheckProgress& progress)
      : extent_(extent),
        source_(extent.source),
        report_(report),
        progress_(progress),
        geometry_(extent.file.geometry),
        redundant_(extent.file.redundant_directory),
        size_(std::min(extent.sectors, geometry_.capacity) * kVmdkSectorBytes),
        file_sectors_(div_round_up(source_.size(), kVmdkSectorBytes)),
        map_(file_sectors_, extent.window_sectors) {}

  Result<uint64_t> run() {
    check_head();
    report_.totals.total += div_round_up(size_, geometry_.grain_bytes());
    if (!choose_directory()) return source_.size();
    TRY(find_tables());
    if (redundant_ != 0) TRY(compare_redundant());
    VmdkUnused unused(source_, extent_.file, report_, extent_.is_image);
    for (pass_ = 0; pass_ < map_.windows(); ++pass_) {
      map_.begin(pass_);
      TRY(mark_metadata());
      TRY(check_tables());
      TRY(unused.look_in(map_, [&] { return progress(extent_.sectors); }));
    }
    return std::min(end_ * kVmdkSectorBytes, source_.size());
  }

 private:
  // Where an entry of a grain table stands, and what it is for.
  struct Place {
    uint64_t table = 0;        // byte in the file
    uint64_t entry = 0;        // byte in the file
    uint64_t grain_start = 0;  // byte of the extent
  };

  Finding finding(Kind kind, std::string_view code, uint64_t offset, Error error) const {
    return vmdk_finding(kind, code, source_, extent_.is_image, std::move(error), offset);
  }
  template <class... Args>
  void corrupt(std::string_view code, uint64_t offset, fmt::format_string<Args...> format,
               Args&&... args) {
    report_.add(Kind::kCorruption, [&] {
      return finding(Kind::kCorruption, code, offset,
                     fail(ErrorKind::kMalformed, format, std::forward<Args>(args)...).value());
    });
  }
  void unreadable(uint64_t offset, const Error& error) {
    report_.add(Kind::kFailure,
                [&] { return finding(Kind::kFailure, "unreadable", offset, error); });
  }

  // `sectors` of the extent's, in this pass.
  Result<void> progress(uint64_t sectors) {
    const uint64_t passes = map_.windows();
    const uint64_t done =
        extent_.sectors / passes * pass_ + std::min(sectors, extent_.sectors) / passes;
    return report_.progress(progress_.done + done, progress_.total);
  }

  // Calls visit(index, raw) for each entry of `count` at `offset` that is not 0. What cannot be
  // read is told and left out.
  template <class Visit>
  Result<void> for_each_entry(uint64_t offset, uint64_t count, Visit visit) {
    const uint64_t width = geometry_.entry_bytes();
    std::vector<std::byte> slice;
    uint64_t index = 0;
    while (index < count) {
      const uint64_t at = offset + index * width;
      const uint64_t rest = (count - index) * width;
      if (const SourceRun run = source_.run_at(at, rest); run.hole && run.length >= width) {
        index += run.length / width;
        continue;
      }
      slice.resize(static_cast<size_t>(std::min(rest, kSliceBytes)));
      if (const auto read = source_.read_at(at, slice); !read) {
        unreadable(at, read.error());
      } else {
        for (uint64_t i = 0; i < slice.size() / width; ++i) {
          const uint64_t raw = load_entry(slice, i, width);
          if (raw != 0) TRY(visit(index + i, raw));
        }
      }
      index += slice.size() / width;
    }
    return {};
  }

  // ---- directory and tables ----

  void check_head() {
    if (extent_.is_image) return;  // its head was looked at
    if (extent_.file.unclean_shutdown) {
      Finding finding = vmdk_unclean_shutdown();
      finding.message = fmt::format("{}: {}", printable(source_.name()), finding.message);
      report_.add(finding);
    }
    if (geometry_.capacity < extent_.sectors) {
      corrupt("capacity-too-small", 0,
              "capacity is {} sectors, but the descriptor gives the extent {}", geometry_.capacity,
              extent_.sectors);
    }
  }

  // False when there is none.
  bool choose_directory() {
    if (is_directory_good("directory")) return true;
    if (redundant_ == 0 || redundant_ == geometry_.directory) return false;
    geometry_.directory = redundant_;
    redundant_ = 0;
    return is_directory_good("redundant-directory");
  }

  bool is_directory_good(std::string_view what) {
    const auto good = geometry_.check_directory(source_.size());
    if (good) return true;
    const bool beyond = good.error().kind == ErrorKind::kTruncated;
    report_.add(finding(Kind::kCorruption,
                        misplaced(what, beyond ? Placement::kBeyondEnd : Placement::kInMetadata),
                        geometry_.directory_range().offset, good.error()));
    return false;
  }

  bool is_table_good(const VmdkGeometry& geometry, uint64_t number, uint64_t raw, bool tell) {
    const Placement placement = geometry.table_placement(raw, source_.size());
    if (placement == Placement::kGood || !tell) return placement == Placement::kGood;
    report_.add(Kind::kCorruption, [&] {
      return finding(Kind::kCorruption, misplaced("table", placement),
                     directory_entry_at(geometry, number),
                     geometry.check_table(number, raw, source_.size()).error());
    });
    return false;
  }

  // Byte in the file.
  static uint64_t directory_entry_at(const VmdkGeometry& geometry, uint64_t number) {
    return geometry.directory_range().offset + number * geometry.entry_bytes();
  }

  Result<void> find_tables() {
    const FileRange directory = geometry_.directory_range();
    bool all = true;
    TRY(for_each_entry(directory.offset, geometry_.table_count(),
                       [&](uint64_t number, uint64_t raw) -> Result<void> {
                         if (!is_table_good(geometry_, number, raw, /*tell=*/true)) return {};
                         all = tables_.size() < kVmdkMaxCheckedTables;
                         if (all) {
                           tables_.push_back(
                               {.sector = geometry_.directory_entry(raw).sector, .number = number});
                         }
                         return number % 1024 == 0 ? progress(0) : Result<void>();
                       }));
    if (!all) {
      const Failure why = fail(ErrorKind::kLimit,
                               "there are more than {} grain tables: the others are not looked at",
                               kVmdkMaxCheckedTables);
      report_.add(finding(Kind::kFailure, "too-many-tables", directory.offset, why.value()));
    }
    std::sort(tables_.begin(), tables_.end());
    drop_overlapping_tables();
    return {};
  }

  // What lies in another table is no table.
  void drop_overlapping_tables() {
    const uint64_t length = geometry_.table_bytes() / kVmdkSectorBytes;
    size_t kept = 0;
    for (const VmdkTable& table : tables_) {
      if (kept > 0 && table.sector - tables_[kept - 1].sector < length) {
        corrupt("table-overlap", table.sector * kVmdkSectorBytes,
                "grain directory entries {} and {} name tables that overlap, at sectors {} and {}",
                tables_[kept - 1].number, table.number, tables_[kept - 1].sector, table.sector);
        continue;
      }
      tables_[kept++] = table;
    }
    tables_.resize(kept);
  }

  bool is_kept(const VmdkTable& table) const {
    return std::binary_search(tables_.begin(), tables_.end(), table);
  }

  // ---- the redundant directory ----

  VmdkGeometry redundant_geometry() const {
    VmdkGeometry second = geometry_;
    second.directory = redundant_;
    return second;
  }

  Result<void> compare_redundant() {
    const VmdkGeometry second = redundant_geometry();
    if (const auto good = second.check_directory(source_.size()); !good) {
      report_.add(finding(Kind::kCorruption, "redundant-directory", second.directory_range().offset,
                          good.error()));
      redundant_ = 0;
      return {};
    }
    const uint64_t width = geometry_.entry_bytes();
    const FileRange first_range = geometry_.directory_range();
    const FileRange second_range = second.directory_range();
    std::vector<std::byte> first_slice;
    std::vector<std::byte> second_slice;
    for (uint64_t at = 0; at < first_range.length; at += first_slice.size()) {
      first_slice.resize(static_cast<size_t>(std::min(first_range.length - at, kSliceBytes)));
      second_slice.resize(first_slice.size());
      if (!read(first_range.offset + at, first_slice) ||
          !read(second_range.offset + at, second_slice)) {
        continue;
      }
      for (uint64_t i = 0; i < first_slice.size() / width; ++i) {
        compare_entry(second, at / width + i, load_entry(first_slice, i, width),
                      load_entry(second_slice, i, width));
      }
      TRY(progress(0));
    }
    if (empty_ == 0) return {};
    report_.add({.kind = Finding::Kind::kNotice,
                 .code = "redundant-empty",
                 .message = fmt::format(
                     "the redundant grain directory is of no use: {} of its tables are empty, "
                     "those of the other one are not",
                     empty_)});
    return {};
  }

  bool read(uint64_t offset, MutableByteSpan out) {
    const auto done = source_.read_at(offset, out);
    if (!done) unreadable(offset, done.error());
    return done.has_value();
  }

  void compare_entry(const VmdkGeometry& second, uint64_t number, uint64_t raw, uint64_t other) {
    const uint64_t at = directory_entry_at(second, number);
    if ((raw == 0) != (other == 0)) {
      corrupt("redundant-directory", at,
              "grain directory entry {} is {}, but that of the redundant directory {}", number, raw,
              other);
      return;
    }
    // What is wrong with the first one was told.
    if (raw == 0 || !is_table_good(geometry_, number, raw, /*tell=*/false)) return;
    if (second.table_placement(other, source_.size()) != Placement::kGood) {
      report_.add(Kind::kCorruption, [&] {
        return finding(Kind::kCorruption, "redundant-directory", at,
                       second.check_table(number, other, source_.size()).error());
      });
      return;
    }
    compare_tables(number, raw * kVmdkSectorBytes, other * kVmdkSectorBytes);
  }

  void compare_tables(uint64_t number, uint64_t first, uint64_t second) {
    std::vector<std::byte> tables(2 * static_cast<size_t>(geometry_.table_bytes()));
    const MutableByteSpan ours = MutableByteSpan(tables).first(tables.size() / 2);
    const MutableByteSpan others = MutableByteSpan(tables).last(tables.size() / 2);
    if (!read(first, ours) || !read(second, others)) return;
    const auto differs = std::mismatch(ours.begin(), ours.end(), others.begin());
    if (differs.first == ours.end()) return;
    if (is_zero(others)) {
      ++empty_;  // some writers leave them so
      return;
    }
    const auto index =
        static_cast<uint64_t>(differs.first - ours.begin()) / geometry_.entry_bytes();
    corrupt("redundant-table", second + index * geometry_.entry_bytes(),
            "entry {} of grain table {} is {}, but that of its redundant copy {}", index, number,
            load_entry(ours, index, geometry_.entry_bytes()),
            load_entry(others, index, geometry_.entry_bytes()));
  }

  // ---- grains ----

  void use(uint64_t sector, uint64_t count) {
    map_.mark(sector, count);
    end_ = std::max(end_, sector + count);
  }
  void use(const FileRange& range) {
    if (range.length == 0) return;
    const uint64_t end = div_round_up(range.offset + range.length, kVmdkSectorBytes);
    use(range.offset / kVmdkSectorBytes, end - range.offset / kVmdkSectorBytes);
  }

  Result<void> mark_metadata() {
    use(0, std::min(geometry_.grains_from, file_sectors_));
    for (const FileRange& range : geometry_.reserved) use(range);
    use(geometry_.directory_range());
    for (const VmdkTable& table : tables_) {
      use({.offset = table.sector * kVmdkSectorBytes, .length = geometry_.table_bytes()});
    }
    if (redundant_ == 0) return {};
    const VmdkGeometry second = redundant_geometry();
    use(second.directory_range());
    return for_each_entry(
        second.directory_range().offset, second.table_count(),
        [&](uint64_t number, uint64_t raw) -> Result<void> {
          if (is_table_good(second, number, raw, /*tell=*/false)) {
            use({.offset = raw * kVmdkSectorBytes, .length = geometry_.table_bytes()});
          }
          return {};
        });
  }

  Result<void> check_tables() {
    const FileRange directory = geometry_.directory_range();
    return for_each_entry(
        directory.offset, geometry_.table_count(),
        [&](uint64_t number, uint64_t raw) -> Result<void> {
          const VmdkEntry table = geometry_.directory_entry(raw);
          if (!is_kept({.sector = table.sector, .number = number})) return {};
          const uint64_t start = number * geometry_.covered_bytes();
          TRY(progress(start / kVmdkSectorBytes));
          const uint64_t at = table.sector * kVmdkSectorBytes;
          return for_each_entry(at, geometry_.gtes_per_gt, [&](uint64_t i, uint64_t entry) {
            return check_entry(entry, {.table = at,
                                       .entry = at + i * geometry_.entry_bytes(),
                                       .grain_start = start + i * geometry_.grain_bytes()});
          });
        });
  }

  Result<void> check_entry(uint64_t raw, const Place& place) {
    const VmdkEntry entry = geometry_.table_entry(raw);
    if (entry.kind == EntryKind::kZero) return {};
    // Behind the end that the descriptor gives the extent nothing is read.
    const bool visible = place.grain_start < size_;
    if (pass_ == 0 && visible && entry.kind == EntryKind::kStored) count(entry.sector);
    if (!is_grain_good(raw, entry, place, visible)) return {};
    if (geometry_.compressed) return check_stream(entry.sector, place, visible);
    mark_grain(entry.sector, std::min(geometry_.grain_size, file_sectors_ - entry.sector), place);
    next_sector_ = entry.sector + geometry_.grain_size;
    return {};
  }

  void count(uint64_t sector) {
    CheckTotals& totals = report_.totals;
    ++totals.allocated;
    if (geometry_.compressed) ++totals.compressed;
    // As qemu-img counts: compressed ones are no whole clusters.
    if (geometry_.compressed || (next_sector_ != 0 && sector != next_sector_)) ++totals.fragmented;
  }

  bool is_grain_good(uint64_t raw, const VmdkEntry& entry, const Place& place, bool visible) {
    const uint64_t length =
        visible ? std::min(geometry_.grain_bytes(), size_ - place.grain_start) : kVmdkSectorBytes;
    uint64_t table = place.table;
    Placement placement = grain_placement(entry, length, table);
    if (placement == Placement::kGood) {
      table = nearest_vmdk_table(tables_, geometry_, entry.sector, length,
                                 place.table / kVmdkSectorBytes);
      placement = grain_placement(entry, length, table);
    }
    if (placement == Placement::kGood || pass_ > 0 || !visible) {
      return placement == Placement::kGood;
    }
    report_.add(Kind::kCorruption, [&] {
      return finding(
          Kind::kCorruption, misplaced("grain", placement), place.entry,
          geometry_.check_grain(raw, place.grain_start, length, table, source_.size()).error());
    });
    return false;
  }

  Placement grain_placement(const VmdkEntry& entry, uint64_t length, uint64_t table) const {
    if (entry.kind == EntryKind::kUnknown) return Placement::kUnknown;
    return geometry_.placement(entry.sector, length, table, source_.size());
  }

  // False when something else lies there.
  bool mark_grain(uint64_t sector, uint64_t count, const Place& place) {
    const bool twice = map_.mark_start(sector);
    const bool used = map_.mark(sector, count);
    end_ = std::max(end_, sector + count);
    if (!used) return true;
    corrupt(twice ? "grain-twice" : "grain-overlap", place.entry,
            "grain table entry for sector {} of the extent names sector {}, {}",
            place.grain_start / kVmdkSectorBytes, sector,
            twice ? "as the entry of another grain does" : "where another grain or a table lies");
    return false;
  }

  Result<void> check_stream(uint64_t sector, const Place& place, bool visible) {
    const uint64_t most = div_round_up(
        kVmdkGrainMarkerBytes + vmdk_max_stored_bytes(geometry_.grain_size), kVmdkSectorBytes);
    if (sector >= map_.end() || sector + most <= map_.first()) return {};
    const bool tell = map_.holds(sector) && visible;
    const uint64_t at = sector * kVmdkSectorBytes;
    std::array<std::byte, kVmdkGrainMarkerBytes> marker{};
    auto read = source_.read_at(at, marker);
    Result<uint32_t> size = 0;
    if (read) {
      size = parse_vmdk_grain_marker(marker, place.grain_start / kVmdkSectorBytes,
                                     geometry_.grain_size);
    }
    if (!read || !size) {
      const bool lonely = mark_grain(sector, 1, place);
      if (lonely && tell) tell_marker(at, read ? size.error() : read.error());
      return {};
    }
    const uint64_t stored = kVmdkGrainMarkerBytes + *size;
    if (!mark_grain(sector, div_round_up(stored, kVmdkSectorBytes), place) || !tell) return {};
    if (!range_within(at, stored, source_.size())) {
      corrupt("grain-beyond-end", at,
              "the grain of sector {} has {} compressed bytes, which go on beyond the end of the "
              "file, which has {} bytes",
              place.grain_start / kVmdkSectorBytes, *size, source_.size());
    } else {
      check_data(at + kVmdkGrainMarkerBytes, *size, place);
    }
    return {};
  }

  void tell_marker(uint64_t at, const Error& error) {
    const Kind kind = error.kind == ErrorKind::kIo ? Kind::kFailure : Kind::kCorruption;
    report_.add(kind, [&] { return finding(kind, "grain-marker", at, error); });
  }

  void check_data(uint64_t offset, uint32_t size, const Place& place) {
    const StreamBuffer stream(size);
    grain_.resize(
        static_cast<size_t>(std::min(geometry_.grain_bytes(), size_ - place.grain_start)));
    if (!read(offset, stream.bytes())) return;
    if (const auto done = decompress(Codec::kZlib, stream.bytes(), grain_); !done) {
      const auto data = [&] {
        const std::string grain =
            fmt::format("the grain of sector {}: ", place.grain_start / kVmdkSectorBytes);
        return finding(Kind::kCorruption, "grain-data", offset,
                       with_context(done.error(), grain).value());
      };
      report_.add(Kind::kCorruption, data);
    }
  }

  const VmdkExtentToCheck& extent_;
  const Source& source_;
  CheckReport& report_;
  const VmdkCheckProgress& progress_;
  VmdkGeometry geometry_;
  uint64_t redundant_;  // sector of the second directory, 0: there is none to be compared
  uint64_t size_;       // bytes of the extent that the guest can see
  uint64_t file_sectors_;
  VmdkSectorMap map_;
  uint64_t pass_ = 0;
  std::vector<VmdkTable> tables_;  // that can be used, in order
  uint64_t empty_ = 0;             // redundant tables
  uint64_t next_sector_ = 0;       // behind the last grain
  uint64_t end_ = 0;               // sector behind all that is used
  std::vector<std::byte> grain_;
};

}  // namespace

Result<uint64_t> check_vmdk_extent(const VmdkExtentToCheck& extent, CheckReport& report,
                                   const VmdkCheckProgress& progress) {
  return ExtentCheck(extent, report, progress).run();
}

}  // namespace underlay
