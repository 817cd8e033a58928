// How the grain directory and the grain tables of a sparse extent are laid out and what their
// entries say, for every kind of extent. Pure.
//
//   grain directory  one entry for each grain table, for gtes_per_gt * grain_size sectors
//   grain table      gtes_per_gt entries, one for each grain
//
//   hosted sparse    u32 sector; 0: absent, 1 in a grain table: zeros
//   COWD             u32 sector; 0: absent
//   seSparse         u64 with its state in the top bits (vmdk_sesparse_layout.h)
#pragma once

#include <array>
#include <cstdint>

#include "formats/file_range.h"
#include "io/error.h"

namespace underlay {

// What an entry says.
struct VmdkEntry {
  enum class Kind : uint8_t {
    kAbsent,  // not in this extent
    kZero,    // zeros, whatever the parent has
    kStored,
    kUnknown,  // a state that the format does not have
  };
  Kind kind = Kind::kAbsent;
  uint64_t sector = 0;  // kStored: at most 2 * kVmdkMaxSectors, so that bytes fit in an uint64
};

struct VmdkGeometry {
  enum class Entries : uint8_t { kHosted, kCowd, kSeSparse };

  // In sectors, each at most kVmdkMaxSectors.
  uint64_t capacity = 0;
  uint64_t grain_size = 0;   // a power of two
  uint64_t directory = 0;    // where it begins
  uint64_t grains_from = 0;  // no grain lies before this sector
  uint64_t gtes_per_gt = 0;  // entries
  Entries entries = Entries::kHosted;
  bool compressed = false;  // grains are markers with zlib streams

  // What else is no place for a table or a grain: header, descriptor, ...
  std::array<FileRange, 2> reserved{};

  // kSeSparse: where the tables lie that the directory numbers, and the grains that tables number.
  uint64_t tables_offset = 0;
  uint64_t tables_size = 0;
  uint64_t grains_offset = 0;

  uint64_t entry_bytes() const { return entries == Entries::kSeSparse ? 8 : 4; }
  uint64_t grain_bytes() const;    // of the guest's
  uint64_t covered_bytes() const;  // of the guest's, by one grain table
  uint64_t table_bytes() const { return gtes_per_gt * entry_bytes(); }
  uint64_t table_count() const;
  FileRange directory_range() const;
  FileRange table_range(uint64_t sector) const;
  // Always, but in seSparse.
  bool is_in_tables(uint64_t sector) const;

  VmdkEntry directory_entry(uint64_t raw) const;
  VmdkEntry table_entry(uint64_t raw) const;

  // Can the directory lie where it is said to, in a file of `file_size` bytes?
  Result<void> check_directory(uint64_t file_size) const;

  // kUnknown: the entry says no place.
  enum class Placement : uint8_t { kGood, kUnknown, kInMetadata, kBeyondEnd };
  // Of the table that a directory entry names. REQUIRES: not absent.
  Placement table_placement(uint64_t raw, uint64_t file_size) const;

  // The same as an error of directory entry `number`.
  Result<void> check_table(uint64_t number, uint64_t raw, uint64_t file_size) const;

  // Of a stored grain that must have `length` bytes of the guest's, named by a table at file offset
  // `table`.
  Placement placement(uint64_t sector, uint64_t length, uint64_t table, uint64_t file_size) const;

  // The same as an error that names the grain's place in the extent. `raw` is its table entry,
  // which is neither absent nor zero.
  Result<void> check_grain(uint64_t raw, uint64_t grain_start, uint64_t length, uint64_t table,
                           uint64_t file_size) const;
};

}  // namespace underlay
