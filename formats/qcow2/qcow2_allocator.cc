#include "formats/qcow2/qcow2_allocator.h"

#include <algorithm>
#include <cassert>

namespace underlay {
namespace {

Failure too_many_clusters(uint64_t cluster_size) {
  return fail(ErrorKind::kLimit,
              "the image would have more clusters of {} bytes than its refcounts may count: say a "
              "larger -o cluster_size",
              cluster_size);
}

}  // namespace

Qcow2Allocator::Qcow2Allocator(uint64_t cluster_size, Sink& sink)
    : cluster_size_(cluster_size), sink_(sink), table_{cluster_size}, block_(cluster_size) {
  add_reference(0);
  add_reference(next_++);
}

Result<uint64_t> Qcow2Allocator::take_cluster() {
  if (next_ % counts_in_block() == 0) TRY(begin_range());
  const uint64_t cluster = next_++;
  add_reference(cluster);
  return cluster * cluster_size_;
}

Result<uint64_t> Qcow2Allocator::take_bytes(uint64_t length) {
  assert(length > 0 && length < cluster_size_);
  const uint64_t room = (cluster_size_ - stream_end_ % cluster_size_) % cluster_size_;
  uint64_t offset = stream_end_;
  if (length > room) {
    const uint64_t cluster = TRY(take_cluster());
    // Another range has begun, or something else was taken meanwhile: not behind the last one.
    if (stream_end_ == 0 || room == 0 || stream_end_ + room != cluster) {
      stream_end_ = cluster + length;
      return cluster;
    }
    offset = stream_end_;
  }
  add_reference(offset / cluster_size_);
  stream_end_ = offset + length;
  return offset;
}

// The block of the range that is full is written: streams of the new one begin in a cluster of
// their own.
Result<void> Qcow2Allocator::begin_range() {
  if ((table_.size() + 1) * sizeof(uint64_t) > kMaxTableBytes) {
    return too_many_clusters(cluster_size_);
  }
  TRY(write_block());
  std::ranges::fill(block_, std::byte{});
  table_.push_back(next_ * cluster_size_);
  add_reference(next_++);
  stream_end_ = 0;
  return {};
}

void Qcow2Allocator::add_reference(uint64_t cluster) {
  const uint64_t at = cluster % counts_in_block() * kRefcountBytes;
  const auto count = load_be<uint16_t>(block_, at);
  // Streams in one cluster are fewer than 2^16: deflate packs 1032 bytes into one at best, and zstd
  // wants several bytes for each 128 KiB, and for a frame.
  store_be<uint16_t>(block_, at, static_cast<uint16_t>(count + 1));
}

Result<void> Qcow2Allocator::write_block() { return sink_.write(table_.back(), block_); }

Result<Qcow2Allocator::End> Qcow2Allocator::finish(uint64_t l1_bytes) {
  const uint64_t l1_clusters = div_round_up(l1_bytes, cluster_size_);
  assert(l1_bytes > 0);
  // The blocks count themselves and their table, too.
  uint64_t end = next_;
  uint64_t blocks = 0;
  uint64_t table_clusters = 0;
  for (uint64_t wanted = next_ + l1_clusters; wanted != end;) {
    end = wanted;
    blocks = std::max<uint64_t>(div_round_up(end, counts_in_block()), table_.size());
    table_clusters = div_round_up(blocks * sizeof(uint64_t), cluster_size_);
    wanted = next_ + l1_clusters + table_clusters + (blocks - table_.size());
  }
  if (blocks * sizeof(uint64_t) > kMaxTableBytes) {
    return too_many_clusters(cluster_size_);
  }
  const End places{.l1_offset = next_ * cluster_size_,
                   .refcount_table_offset = (next_ + l1_clusters) * cluster_size_,
                   .refcount_table_clusters = static_cast<uint32_t>(table_clusters),
                   .file_size = end * cluster_size_};
  uint64_t next_block = places.refcount_table_offset + table_clusters * cluster_size_;
  for (; next_ < end; ++next_) {
    if (next_ == table_.size() * counts_in_block()) {
      TRY(write_block());
      std::ranges::fill(block_, std::byte{});
      table_.push_back(next_block);
      next_block += cluster_size_;
    }
    add_reference(next_);
  }
  TRY(write_block());
  std::vector<std::byte> table(table_clusters * cluster_size_);
  for (size_t i = 0; i < table_.size(); ++i) store_be<uint64_t>(table, i * 8, table_[i]);
  TRY(sink_.write(places.refcount_table_offset, table));
  return places;
}

}  // namespace underlay
