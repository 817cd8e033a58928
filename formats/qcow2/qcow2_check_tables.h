// The L1 and L2 tables of a qcow2 image, entry by entry: what they use, and what is wrong in them.
#pragma once

#include <optional>
#include <vector>

#include "formats/qcow2/qcow2_check_pass.h"
#include "formats/qcow2/qcow2_entries.h"
#include "formats/qcow2/qcow2_refcounts.h"

namespace underlay {

// Goes through L2 tables in the order of the file, and through each once for all L1 entries that
// name it: snapshots share them, and an image that is made for it may name one a million times.
class Qcow2TableCheck {
 public:
  // What the tables map.
  struct Options {
    std::optional<uint64_t> data_file_size;  // nullopt: none, or not known
    Qcow2Refcounts* refcounts = nullptr;     // for "copied" flags; null when they are of no use
  };
  Qcow2TableCheck(Qcow2CheckPass& pass, const Options& options);

  // `times`: how many snapshots have this very table. `named_at`: where in the file. REQUIRES: the
  // table has at most Qcow2Header::kMaxL1Bytes and lies at a multiple of the cluster size.
  Result<void> add_active(const Qcow2L1& l1, uint64_t named_at);
  Result<void> add_snapshot(const Qcow2L1& l1, uint64_t times, uint64_t named_at);

  // Behind the last table. Fails when the operator breaks off.
  Result<void> finish();

 private:
  // An L1 entry's L2 table.
  struct Named {
    uint64_t offset = 0;        // in the file
    uint64_t guest_offset = 0;  // of what it maps
    uint64_t disk_size = 0;
    uint32_t times = 0;  // of snapshots; 0: of the active disk
  };
  // One L2 table, for all who name it.
  struct Table {
    uint64_t offset = 0;
    uint64_t guest_offset = 0;  // the first one's
    uint64_t disk_size = 0;
    uint64_t active_times = 0;
    uint64_t times = 0;         // with the active ones
    uint64_t next_cluster = 0;  // where the last cluster of it ended; 0: at none yet
  };
  struct Entry {
    uint64_t at = 0;  // in the file
    uint64_t guest_offset = 0;
    uint64_t word = 0;
    Qcow2L2Bits bits;
  };

  Result<void> add(const Qcow2L1& l1, uint32_t times, uint64_t named_at);
  bool names_table(const Qcow2L1& l1, uint32_t times, uint64_t index, uint64_t entry);
  void check_copied_l2(uint64_t at, const Qcow2L1Bits& bits);
  Result<void> check_tables();
  void check_table(Table& table);
  void check_entry(Table& table, const Entry& entry);
  void check_compressed(const Table& table, const Entry& entry);
  void check_unallocated(const Table& table, const Entry& entry);
  void check_standard(Table& table, const Entry& entry);
  uint64_t needed_bytes(const Table& table, const Entry& entry) const;
  void check_place(const Table& table, const Entry& entry);
  void check_data_file(const Table& table, const Entry& entry);
  void check_copied(const Table& table, const Entry& entry);
  template <class... Args>
  void tell(const Table& table, const Entry& entry, std::string_view code,
            fmt::format_string<Args...> format, Args&&... args);

  Qcow2CheckPass& pass_;
  const Qcow2Header& header_;
  const Options options_;
  std::vector<Named> named_;
  std::vector<std::byte> bytes_;  // of one L2 table
};

}  // namespace underlay
