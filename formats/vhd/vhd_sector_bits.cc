#include "formats/vhd/vhd_sector_bits.h"

#include <algorithm>

namespace underlay::vhd {
namespace {

constexpr uint64_t kPieceBytes = 256 << 10;  // read at once

}  // namespace

Result<bool> UnmarkedData::is_in(uint64_t block, uint64_t start) {
  const uint64_t data = start + image_.header.bitmap_bytes();
  const uint64_t bytes = image_.needed_bytes(block) - image_.header.bitmap_bytes();
  const uint64_t sectors = div_round_up(bytes, kSectorBytes);
  bitmap_.resize(static_cast<size_t>(div_round_up(sectors, 8)));
  TRY(source_.read_at(start, bitmap_));
  const auto is_marked = [&](uint64_t sector) {
    const auto byte = std::to_integer<unsigned>(bitmap_[static_cast<size_t>(sector / 8)]);
    return (byte & 0x80u >> sector % 8) != 0;
  };
  for (uint64_t sector = 0; sector < sectors;) {
    uint64_t end = sector;
    while (end < sectors && !is_marked(end)) ++end;
    const uint64_t length = std::min(end * kSectorBytes, bytes) - sector * kSectorBytes;
    if (end > sector && TRY(has_data(data + sector * kSectorBytes, length))) return true;
    sector = end + 1;
  }
  return false;
}

Result<bool> UnmarkedData::has_data(uint64_t offset, uint64_t length) {
  while (length > 0) {
    const SourceRun run = source_.run_at(offset, length);
    uint64_t step = std::min(run.length, length);
    if (!run.hole) {
      step = std::min(step, kPieceBytes);
      piece_.resize(static_cast<size_t>(step));
      TRY(source_.read_at(offset, piece_));
      if (!is_zero(piece_)) return true;
    }
    offset += step;
    length -= step;
  }
  return false;
}

}  // namespace underlay::vhd
