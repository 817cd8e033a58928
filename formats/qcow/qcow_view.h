// A qcow image as libqcow can read it.
//
// libqcow 20201213 takes L2 tables to lie at multiples of their size and reads what lies there
// otherwise; in images with backing file, they lie at multiples of 512 and have 32 KiB. It also
// refuses to read an image that names a backing file unless it is given one, and one whose L2
// tables map more than 128 MiB each. So it gets a view of the image: no backing file, and the
// tables once more behind the end of the file, where libqcow finds them, in parts where they are
// too large:
//
//   0                    the header, without backing file; l1_table_offset, l2_bits changed
//   48                   the file's bytes as they are; clusters are where they were
//   rounded-up file size L1 table: entry i names the place of L2 table i in this view, 0 = none
//   then                 the L2 tables of all L1 entries, each at a multiple of its size
#pragma once

#include <memory>
#include <string>

#include "formats/qcow/qcow_layout.h"
#include "io/source.h"

namespace underlay::qcow {

// Thread-safe. Nothing is kept in memory: the tables are read where they lie.
class View final : public Source {
 public:
  // REQUIRES: every L2 table that the L1 table names lies within `file`.
  View(std::shared_ptr<const Source> file, const Header& header);

  const std::string& name() const override { return file_->name(); }
  uint64_t size() const override { return tables_ + shown_.l1_entries() * shown_.l2_bytes(); }
  // Of the L1 table, which libqcow holds in memory.
  uint64_t l1_bytes() const { return shown_.l1_bytes(); }
  // What lies between the parts fails with kTruncated.
  Result<void> read_at(uint64_t offset, MutableByteSpan out) const override;

 private:
  // Fills the front of `out`, at least one byte; the number of bytes.
  Result<size_t> read_part(uint64_t offset, MutableByteSpan out) const;
  Result<size_t> read_l1(uint64_t offset, MutableByteSpan out) const;
  Result<size_t> read_l2(uint64_t offset, MutableByteSpan out) const;

  std::shared_ptr<const Source> file_;
  Header header_;   // the file's
  Header shown_;    // the view's
  unsigned split_;  // each L2 table of the file is 2^split_ of the view
  std::array<std::byte, kHeaderBytes> head_{};
  uint64_t tables_;  // where the first L2 table lies in the view
};

}  // namespace underlay::qcow
