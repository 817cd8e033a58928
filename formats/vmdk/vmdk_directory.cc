#include "formats/vmdk/vmdk_directory.h"

#include <algorithm>

#include "formats/vmdk/vmdk_layout.h"

namespace underlay {
namespace {

// Directories up to this size are checked when the extent is opened (hosted ones above it are of
// more than 8 TiB); of larger ones each entry when it is used.
constexpr uint64_t kMaxCheckedDirectoryBytes = 1 << 20;

// The same of the tables, all together (16 GiB of full hosted tables).
constexpr uint64_t kMaxCheckedTableBytes = 1 << 20;

uint64_t entry_at(ByteSpan bytes, size_t index, uint64_t entry_bytes) {
  return entry_bytes == 8 ? load_le<uint64_t>(bytes, index * 8)
                          : load_le<uint32_t>(bytes, index * 4);
}

// One directory, with what it names.
class DirectoryCheck {
 public:
  DirectoryCheck(const Source& source, const VmdkGeometry& geometry, uint64_t size)
      : source_(source), geometry_(geometry), size_(size) {}

  Result<void> run() {
    TRY(geometry_.check_directory(source_.size()));
    if (geometry_.directory_range().length > kMaxCheckedDirectoryBytes) return {};
    TRY(find_tables());
    TRY(check_overlaps());
    if (tables_.size() * geometry_.table_bytes() > kMaxCheckedTableBytes) return {};
    for (const VmdkTable& table : tables_) TRY(check_grains_of(table));
    return {};
  }

  // Of the directory, when run() looked at it; else 0.
  uint64_t tables() const { return tables_.size(); }
  uint64_t absent_tables() const { return absent_; }

  // Entries of the tables that are not absent, in all tables that can be read: how much the
  // directory tells, also when it is damaged.
  uint64_t count_grains() const {
    const FileRange range = geometry_.directory_range();
    std::vector<std::byte> directory(
        static_cast<size_t>(std::min(range.length, kMaxCheckedDirectoryBytes)));
    if (!geometry_.check_directory(source_.size()) || !source_.read_at(range.offset, directory)) {
      return 0;
    }
    std::vector<std::byte> table(static_cast<size_t>(geometry_.table_bytes()));
    uint64_t count = 0;
    for (uint64_t number = 0; number < directory.size() / geometry_.entry_bytes(); ++number) {
      const uint64_t raw = entry_at(directory, number, geometry_.entry_bytes());
      const VmdkEntry entry = geometry_.directory_entry(raw);
      const bool readable = entry.kind != VmdkEntry::Kind::kAbsent &&
                            geometry_.check_table(number, raw, source_.size()) &&
                            source_.read_at(entry.sector * kVmdkSectorBytes, table);
      if (readable) count += count_grains_in(table, number);
    }
    return count;
  }

 private:
  uint64_t count_grains_in(ByteSpan table, uint64_t number) const {
    const uint64_t start = number * geometry_.covered_bytes();
    const uint64_t in_disk =
        start < size_ ? div_round_up(size_ - start, geometry_.grain_bytes()) : 0;
    uint64_t count = 0;
    for (size_t i = 0; i < std::min(geometry_.gtes_per_gt, in_disk); ++i) {
      const uint64_t raw = entry_at(table, i, geometry_.entry_bytes());
      if (geometry_.table_entry(raw).kind != VmdkEntry::Kind::kAbsent) ++count;
    }
    return count;
  }

  Result<void> find_tables() {
    const FileRange range = geometry_.directory_range();
    std::vector<std::byte> bytes(static_cast<size_t>(range.length));
    TRY(source_.read_at(range.offset, bytes));
    for (uint64_t number = 0; number < geometry_.table_count(); ++number) {
      const uint64_t raw = entry_at(bytes, number, geometry_.entry_bytes());
      const VmdkEntry entry = geometry_.directory_entry(raw);
      if (entry.kind == VmdkEntry::Kind::kAbsent) {
        ++absent_;
        continue;
      }
      TRY(geometry_.check_table(number, raw, source_.size()));
      tables_.push_back({.sector = entry.sector, .number = number});
    }
    std::sort(tables_.begin(), tables_.end());
    return {};
  }

  Result<void> check_overlaps() const {
    const uint64_t length = geometry_.table_bytes() / kVmdkSectorBytes;
    for (size_t i = 1; i < tables_.size(); ++i) {
      if (tables_[i].sector - tables_[i - 1].sector >= length) continue;
      return fail(ErrorKind::kMalformed,
                  "grain directory entries {} and {} name tables that overlap, at sectors {} and "
                  "{}: the file is damaged",
                  tables_[i - 1].number, tables_[i].number, tables_[i - 1].sector,
                  tables_[i].sector);
    }
    return {};
  }

  Result<void> check_grains_of(const VmdkTable& table) const {
    const uint64_t offset = table.sector * kVmdkSectorBytes;
    std::vector<std::byte> bytes(static_cast<size_t>(geometry_.table_bytes()));
    TRY(source_.read_at(offset, bytes));
    uint64_t grain_start = table.number * geometry_.covered_bytes();
    for (size_t i = 0; i < geometry_.gtes_per_gt && grain_start < size_; ++i) {
      const uint64_t raw = entry_at(bytes, i, geometry_.entry_bytes());
      const VmdkEntry entry = geometry_.table_entry(raw);
      using Kind = VmdkEntry::Kind;
      if (entry.kind == Kind::kStored || entry.kind == Kind::kUnknown) {
        const uint64_t length = std::min(geometry_.grain_bytes(), size_ - grain_start);
        const uint64_t nearest =
            nearest_vmdk_table(tables_, geometry_, entry.sector, length, table.sector);
        TRY(geometry_.check_grain(raw, grain_start, length, offset, source_.size()));
        TRY(geometry_.check_grain(raw, grain_start, length, nearest, source_.size()));
      }
      grain_start += geometry_.grain_bytes();
    }
    return {};
  }

  const Source& source_;
  const VmdkGeometry& geometry_;
  uint64_t size_;
  std::vector<VmdkTable> tables_;  // by sector
  uint64_t absent_ = 0;
};

void warn(std::vector<std::string>& warnings, const Source& source, std::string_view why) {
  warnings.push_back(fmt::format(
      "extent \"{}\" is damaged: {}; its redundant grain directory is whole and is used "
      "instead",
      source.name(), why));
}

}  // namespace

uint64_t nearest_vmdk_table(std::span<const VmdkTable> tables, const VmdkGeometry& geometry,
                            uint64_t sector, uint64_t length, uint64_t other) {
  const uint64_t sectors = geometry.compressed ? 1 : div_round_up(length, kVmdkSectorBytes);
  const uint64_t end = sector + sectors;
  const auto behind = std::lower_bound(
      tables.begin(), tables.end(), end,
      [](const VmdkTable& table, uint64_t wanted) { return table.sector < wanted; });
  return (behind == tables.begin() ? other : std::prev(behind)->sector) * kVmdkSectorBytes;
}

Result<void> choose_vmdk_directory(const Source& source, VmdkGeometry& geometry, uint64_t redundant,
                                   uint64_t size, std::vector<std::string>& warnings) {
  DirectoryCheck primary(source, geometry, size);
  const auto good = primary.run();
  const bool has_second = redundant != 0 && redundant != geometry.directory;
  if (!has_second || (good && primary.absent_tables() == 0)) return good;

  VmdkGeometry second = geometry;
  second.directory = redundant;
  DirectoryCheck other(source, second, size);
  const auto also_good = other.run();
  // Some writers make room for the second directory and its tables, and leave them empty. Without
  // its tables or their entries, it would show zeros or the parent's data.
  const auto tells_as_much = [&] { return other.count_grains() >= primary.count_grains(); };
  if (!good) {
    if (!also_good) {
      return with_context(good.error(), "neither of both grain directories is whole: ");
    }
    if (other.tables() != geometry.table_count() || !tells_as_much()) {
      return with_context(good.error(),
                          "the redundant grain directory tells less than the damaged one: ");
    }
    warn(warnings, source, good.error().message);
  } else {
    if (!also_good || other.tables() <= primary.tables() || !tells_as_much()) return {};
    // The primary would show zeros or the parent's data, too.
    warn(warnings, source,
         fmt::format("its grain directory names {} tables, its redundant one {}", primary.tables(),
                     other.tables()));
  }
  geometry = second;
  return {};
}

}  // namespace underlay
