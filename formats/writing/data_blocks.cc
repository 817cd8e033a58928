#include "formats/writing/data_blocks.h"

#include <algorithm>
#include <utility>

namespace underlay {
namespace {

constexpr uint64_t kUsualBlock = 4 << 10;
constexpr uint64_t kUsualUnit = 64 << 10;
constexpr std::byte kData{1};

}  // namespace

DataBlocks::DataBlocks(uint64_t zero_block)
    : block_(zero_block == 0 ? kUsualBlock : zero_block),
      all_data_(zero_block == 0),
      unit_(std::max<uint64_t>(block_, kUsualUnit)) {}

void DataBlocks::mark(ByteSpan bytes, std::vector<std::byte>& marks) const {
  marks.assign(div_round_up(bytes.size(), block_), kData);
  if (all_data_) return;
  for (std::byte& mark : marks) {
    const ByteSpan block = bytes.first(std::min(block_, bytes.size()));
    if (is_zero(block)) mark = {};
    bytes = bytes.subspan(block.size());
  }
}

ByteSpan DataBlocks::take_marks(size_t size, ByteSpan& prepared) const {
  const ByteSpan marks = prepared.first(div_round_up(size, block_));
  prepared = prepared.subspan(marks.size());
  return marks;
}

Result<void> DataBlocks::each_run(ByteSpan marks, uint64_t offset, ByteSpan bytes, uint64_t limit,
                                  const Store& store) const {
  for (auto mark = marks.begin();;) {
    mark = std::find(mark, marks.end(), kData);
    if (mark == marks.end()) return {};
    const auto end = std::find(mark, marks.end(), std::byte{});
    const auto place = [&](auto at) {
      return std::min(static_cast<size_t>(at - marks.begin()) * block_, bytes.size());
    };
    ByteSpan run = bytes.subspan(place(mark), place(end) - place(mark));
    for (uint64_t at = offset + place(mark); !run.empty();) {
      const ByteSpan piece = run.first(std::min<size_t>(run.size(), limit - at % limit));
      TRY(store(at, piece));
      at += piece.size();
      run = run.subspan(piece.size());
    }
    mark = end;
  }
}

Result<void> JoinedWrites::add(uint64_t offset, ByteSpan bytes) {
  if (offset_ + bytes_.size() == offset && bytes_.data() + bytes_.size() == bytes.data()) {
    bytes_ = {bytes_.data(), bytes_.size() + bytes.size()};
    return {};
  }
  TRY(flush());
  offset_ = offset;
  bytes_ = bytes;
  return {};
}

Result<void> JoinedWrites::flush() {
  const ByteSpan bytes = std::exchange(bytes_, {});
  if (bytes.empty()) return {};
  return sink_.write(offset_, bytes);
}

}  // namespace underlay
