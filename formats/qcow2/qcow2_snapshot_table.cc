#include "formats/qcow2/qcow2_snapshot_table.h"

#include <array>

namespace underlay {

Result<Qcow2SnapshotEntry> Qcow2SnapshotTable::next() {
  auto entry = parse_entry();
  if (!entry) return in_file(std::move(entry).error(), file_.name(), at_);
  at_ += entry->fixed.total_bytes();
  --left_;
  return entry;
}

Result<Qcow2SnapshotEntry> Qcow2SnapshotTable::parse_entry() {
  TRY(check_present(Qcow2Snapshot::kFixedBytes));
  std::array<std::byte, Qcow2Snapshot::kFixedBytes> fixed;
  TRY(file_.read_at(at_, fixed));
  Qcow2SnapshotEntry entry;
  entry.offset = at_;
  entry.fixed = TRY(parse_qcow2_snapshot(fixed));
  if (bytes() > Qcow2Snapshot::kMaxTableBytes - entry.fixed.total_bytes()) {
    return fail(ErrorKind::kLimit, "the snapshot table has more than {} bytes",
                Qcow2Snapshot::kMaxTableBytes);
  }
  TRY(check_present(Qcow2Snapshot::kFixedBytes + entry.fixed.variable_bytes()));
  variable_.resize(entry.fixed.variable_bytes());
  TRY(file_.read_at(at_ + Qcow2Snapshot::kFixedBytes, variable_));

  entry.extra = ByteSpan(variable_).first(entry.fixed.extra_bytes);
  const std::string_view text = as_text(variable_).substr(entry.fixed.extra_bytes);
  entry.id = text.substr(0, entry.fixed.id_bytes);
  entry.name = text.substr(entry.fixed.id_bytes);
  return entry;
}

Result<void> Qcow2SnapshotTable::check_present(uint64_t length) const {
  if (range_within(at_, length, file_.size())) return {};
  return fail(ErrorKind::kTruncated,
              "the snapshot table ends beyond the end of the file, which has {} bytes: it is "
              "truncated or damaged",
              file_.size());
}

}  // namespace underlay
