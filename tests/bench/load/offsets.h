// Where the next read goes.
#pragma once

#include <cstdint>

namespace underlay::bench {

// Multiples of `size` from `from` on, below from + range; REQUIRES: range >= size > 0.
class Offsets {
 public:
  struct Area {
    uint64_t from = 0;
    uint64_t range = 0;
    uint64_t size = 0;
  };
  Offsets(Area area, bool sequential, uint64_t seed)
      : area_(area), blocks_(area.range / area.size), sequential_(sequential), state_(seed) {}

  uint64_t next() {
    if (!sequential_) return at(scale(random()));
    if (next_block_ == blocks_) next_block_ = 0;
    return at(next_block_++);
  }

 private:
  uint64_t at(uint64_t block) const { return area_.from + block * area_.size; }
  // splitmix64, by Sebastiano Vigna: a counter, and a mixing of its bits.
  uint64_t random() {
    state_ += 0x9e3779b97f4a7c15;
    uint64_t bits = state_;
    bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9;
    bits = (bits ^ (bits >> 27)) * 0x94d049bb133111eb;
    return bits ^ (bits >> 31);
  }
  // A random number as a block, without the cost of a division.
  uint64_t scale(uint64_t bits) const {
    __extension__ using Wide = unsigned __int128;
    return static_cast<uint64_t>((static_cast<Wide>(bits) * blocks_) >> 64);
  }

  Area area_;
  uint64_t blocks_;
  bool sequential_;
  uint64_t state_;
  uint64_t next_block_ = 0;
};

}  // namespace underlay::bench
