#include "formats/qcow/qcow_view.h"

#include <algorithm>
#include <vector>

namespace underlay::qcow {
namespace {

// Never wraps: files, and L1 tables with L2 tables for all their entries, have less than 2^63
// bytes.
uint64_t up_to(uint64_t value, uint64_t unit) { return div_round_up(value, unit) * unit; }

// libqcow reads the L1 table in one piece; it is made in pieces of this size.
constexpr size_t kPieceBytes = 64 << 10;

// libqcow's limit: an L2 table maps at most 128 MiB.
constexpr unsigned kMaxSpanBits = 27;

Header shown_header(const Header& header, uint64_t file_size) {
  Header shown;
  shown.size = header.size;
  shown.cluster_bits = header.cluster_bits;
  shown.l2_bits =
      std::min(header.l2_bits, static_cast<uint8_t>(kMaxSpanBits - header.cluster_bits));
  shown.l1_table_offset = up_to(file_size, std::max(shown.cluster_size(), shown.l2_bytes()));
  return shown;
}

}  // namespace

View::View(std::shared_ptr<const Source> file, const Header& header)
    : file_(std::move(file)),
      header_(header),
      shown_(shown_header(header, file_->size())),
      split_(static_cast<unsigned>(header.l2_bits - shown_.l2_bits)),
      tables_(up_to(shown_.l1_table_offset + shown_.l1_bytes(), shown_.l2_bytes())) {
  std::copy(kMagic.begin(), kMagic.end(), head_.begin());
  store_be<uint32_t>(head_, 4, kVersion);
  store_be<uint64_t>(head_, 24, shown_.size);
  store_be<uint8_t>(head_, 32, shown_.cluster_bits);
  store_be<uint8_t>(head_, 33, shown_.l2_bits);
  store_be<uint64_t>(head_, 40, shown_.l1_table_offset);
}

Result<void> View::read_at(uint64_t offset, MutableByteSpan out) const {
  while (!out.empty()) {
    const size_t done = TRY(read_part(offset, out));
    offset += done;
    out = out.subspan(done);
  }
  return {};
}

Result<size_t> View::read_part(uint64_t offset, MutableByteSpan out) const {
  if (offset < head_.size()) {
    const size_t count = std::min(out.size(), head_.size() - static_cast<size_t>(offset));
    std::copy_n(head_.begin() + static_cast<std::ptrdiff_t>(offset), count, out.begin());
    return count;
  }
  if (offset < file_->size()) {
    const auto count = static_cast<size_t>(std::min<uint64_t>(out.size(), file_->size() - offset));
    TRY(file_->read_at(offset, out.first(count)));
    return count;
  }
  const uint64_t l1 = shown_.l1_table_offset;
  if (offset >= l1 && offset - l1 < shown_.l1_bytes()) return read_l1(offset - l1, out);
  if (offset >= tables_ && offset < size()) return read_l2(offset - tables_, out);
  return in_file(
      fail(ErrorKind::kTruncated,
           "bytes beyond the end of the file, which has {} bytes, are asked for", file_->size()),
      name(), offset);
}

// `offset`: from the start of the table.
Result<size_t> View::read_l1(uint64_t offset, MutableByteSpan out) const {
  const uint64_t first = offset / kEntryBytes;
  const uint64_t skip = offset % kEntryBytes;
  const uint64_t wanted = std::min<uint64_t>(out.size(), kPieceBytes - skip);
  const uint64_t count =
      std::min(div_round_up(skip + wanted, kEntryBytes), shown_.l1_entries() - first);
  const uint64_t stored_first = first >> split_;
  const uint64_t stored_count = ((first + count - 1) >> split_) - stored_first + 1;
  std::vector<std::byte> entries(static_cast<size_t>(stored_count * kEntryBytes));
  TRY(file_->read_at(header_.l1_table_offset + stored_first * kEntryBytes, entries));

  std::vector<std::byte> shown(static_cast<size_t>(count * kEntryBytes));
  for (uint64_t entry = first; entry < first + count; ++entry) {
    const auto at = static_cast<size_t>(((entry >> split_) - stored_first) * kEntryBytes);
    if (load_be<uint64_t>(entries, at) == 0) continue;
    store_be<uint64_t>(shown, static_cast<size_t>((entry - first) * kEntryBytes),
                       tables_ + entry * shown_.l2_bytes());
  }
  const auto done = static_cast<size_t>(std::min<uint64_t>(wanted, shown.size() - skip));
  std::copy_n(shown.begin() + static_cast<std::ptrdiff_t>(skip), done, out.begin());
  return done;
}

// `offset`: from the start of the first table.
Result<size_t> View::read_l2(uint64_t offset, MutableByteSpan out) const {
  const uint64_t entry = (offset / shown_.l2_bytes()) >> split_;
  const uint64_t within = offset % header_.l2_bytes();
  const uint64_t left = shown_.l2_bytes() - offset % shown_.l2_bytes();
  const auto count = static_cast<size_t>(std::min<uint64_t>(out.size(), left));
  std::array<std::byte, kEntryBytes> bytes;
  TRY(file_->read_at(header_.l1_table_offset + entry * kEntryBytes, bytes));
  const auto table = load_be<uint64_t>(bytes, 0);
  if (!range_within(table, header_.l2_bytes(), file_->size())) {
    return in_file(fail(ErrorKind::kTruncated,
                        "L1 entry {} names an L2 table beyond the end of the file, which has {} "
                        "bytes",
                        entry, file_->size()),
                   name());
  }
  TRY(file_->read_at(table + within, out.first(count)));
  return count;
}

}  // namespace underlay::qcow
