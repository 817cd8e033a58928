#include "formats/vhdx/vhdx_overlay.h"

#include <algorithm>
#include <cassert>

namespace underlay::vhdx {

// Takes [offset, end) away from the writes that are there.
void Overlay::clear(uint64_t offset, uint64_t end) {
  auto at = writes_.upper_bound(offset);
  if (at != writes_.begin()) --at;
  while (at != writes_.end() && at->first < end) {
    const auto [start, write] = *at;
    if (write.end <= offset) {
      ++at;
      continue;
    }
    at = writes_.erase(at);
    if (start < offset) writes_.emplace(start, Write{.end = offset, .data = write.data});
    if (write.end > end) {
      std::optional<size_t> data = write.data;
      if (data) *data += static_cast<size_t>(end - start);
      at = writes_.emplace(end, Write{.end = write.end, .data = data}).first;
    }
  }
}

void Overlay::put_sector(uint64_t offset, ByteSpan bytes) {
  assert(bytes.size() == kSectorBytes && is_aligned(offset, kSectorBytes));
  clear(offset, offset + kSectorBytes);
  writes_.emplace(offset, Write{.end = offset + kSectorBytes, .data = data_.size()});
  data_.insert(data_.end(), bytes.begin(), bytes.end());
  extend_to(offset + kSectorBytes);
}

void Overlay::put_zeros(uint64_t offset, uint64_t length) {
  assert(is_aligned(offset, kSectorBytes) && is_aligned(length, kSectorBytes));
  if (length == 0) return;
  clear(offset, offset + length);
  writes_.emplace(offset, Write{.end = offset + length, .data = std::nullopt});
  extend_to(offset + length);
}

void Overlay::extend_to(uint64_t size) { size_ = std::max(size_, size); }

Overlay::Piece Overlay::piece_at(uint64_t offset, uint64_t length) const {
  auto next = writes_.upper_bound(offset);
  if (next != writes_.begin()) {
    const auto& [start, write] = *std::prev(next);
    if (offset < write.end) {
      Piece piece{
          .kind = Piece::Kind::kZeros, .length = std::min(length, write.end - offset), .bytes = {}};
      if (!write.data) return piece;
      piece.kind = Piece::Kind::kSector;
      piece.bytes = ByteSpan(data_).subspan(*write.data + static_cast<size_t>(offset - start),
                                            static_cast<size_t>(piece.length));
      return piece;
    }
  }
  if (next != writes_.end()) length = std::min(length, next->first - offset);
  return Piece{.kind = Piece::Kind::kUntouched, .length = length, .bytes = {}};
}

Overlay::Piece ReplayedSource::piece_at(uint64_t offset, uint64_t length) const {
  Overlay::Piece piece = overlay_.piece_at(offset, length);
  if (piece.kind != Overlay::Piece::Kind::kUntouched) return piece;
  if (offset >= file_->size()) {
    piece.kind = Overlay::Piece::Kind::kZeros;
  } else {
    piece.length = std::min(piece.length, file_->size() - offset);
  }
  return piece;
}

Result<void> ReplayedSource::read_at(uint64_t offset, MutableByteSpan out) const {
  if (!range_within(offset, out.size(), size())) {
    return in_file(
        fail(ErrorKind::kTruncated, "{} bytes lie beyond the end, at {} bytes", out.size(), size()),
        name(), offset);
  }
  while (!out.empty()) {
    const Overlay::Piece piece = piece_at(offset, out.size());
    const MutableByteSpan part = out.first(static_cast<size_t>(piece.length));
    switch (piece.kind) {
      case Overlay::Piece::Kind::kUntouched:
        TRY(file_->read_at(offset, part));
        break;
      case Overlay::Piece::Kind::kZeros:
        std::fill(part.begin(), part.end(), std::byte{0});
        break;
      case Overlay::Piece::Kind::kSector:
        std::copy(piece.bytes.begin(), piece.bytes.end(), part.begin());
        break;
    }
    offset += part.size();
    out = out.subspan(part.size());
  }
  return {};
}

}  // namespace underlay::vhdx
